"""The command line: argument parsing only; what the commands do is in the other modules.

Exit status: 0 done (files that could not be indexed are listed, and do not change it), 1 failed or damaged, 2 wrong
usage, 3 with `index --strict` when files were skipped, 75 when another process is writing, 130 interrupted (143 by
SIGTERM, 129 by SIGHUP).
"""

import argparse
import re
import sys
from collections.abc import Sequence

from trivium.encoders.base import MODALITIES
from trivium.pipeline.cli import failures, interrupts, streams
from trivium.pipeline.cli.learning_parser import add_alignment, add_evaluation, add_fused, add_learning
from trivium.pipeline.cli.options import (
    add_device,
    add_filter,
    add_min_relevance,
    add_wish,
    part,
    positive,
    seconds,
)
from trivium.pipeline.escaping import printable
from trivium.version import __version__

EXIT_FAILED, EXIT_USAGE, EXIT_SKIPPED, EXIT_LOCKED = 1, 2, 3, 75
PART_OPTIONS = ("--text", "--image", "--audio")
# Options of `search` that take a value, and its one-letter options: other words with a leading dash are queries.
VALUE_OPTIONS = (
    *(*PART_OPTIONS, "--only", "--path", "--where", "--min-relevance", "--html", "--explain-hits"),
    *("--space", "--device", "--precision", "--sandbox", "-k"),
)
CACHE_PARTS = ("weights", "graphs", "labels", "open-clip", "features", "all")
EXPLAIN, EXPLANATIONS = "--explain", "explanations"  # an option whose value may be left out, and what it then is
SEARCH_LETTERS = re.compile(r"-(h|k|k\d+)")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="trivium",
        description="Search a local collection of pictures, sounds and texts, any by any.",
        epilog="Exit status: 0 done, 1 failed or damaged, 2 wrong usage, 3 files skipped (index --strict), 75 another "
        "process is writing to the collection, 130 interrupted (143 by SIGTERM, 129 by SIGHUP).",
    )
    parser.add_argument("--version", action="version", version=f"trivium {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    index = commands.add_parser("index", help="make a collection, or bring it up to date")
    index.add_argument("collection", metavar="COLLECTION", help="the collection's folder; made if it does not exist")
    index.add_argument("media", metavar="MEDIA", nargs="+", help="files and folders")
    index.add_argument("--space", help="a space's name or folder (see `trivium spaces`)")
    index.add_argument("--no-captions", action="store_true", help="show captions in hits, but do not search them")
    index.add_argument(
        "--metadata",
        metavar="TABLE",
        help="CSV or JSON lines with a column 'path', for --where; beside NAME.json files, which are always read",
    )
    index.add_argument("--positions", action="store_true", help="keep from metadata where media were made")
    index.add_argument(
        "--windows",
        type=float,
        metavar="SECONDS",
        help="give sounds a vector for each stretch of so many seconds too, so that hits say where; 0: none again",
    )
    index.add_argument("--stats", action="store_true", help="tell what each stage did, and which one limits the run")
    index.add_argument("--strict", action="store_true", help="exit with 3 if a file was skipped")
    index.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    add_wish(index)
    add_device(index)

    search = commands.add_parser(
        "search",
        allow_abbrev=False,
        help="find items by text, picture, sound, or several at once",
        description="A query part may have a weight: '2:beach', '-0.5:crowd'; a leading '-' means less of it.",
    )
    search.add_argument("collection", metavar="COLLECTION")
    add_query(search)
    search.add_argument("--space", help="refuse the collection if it was made with another space")
    add_device(search)

    shell = commands.add_parser(
        "shell",
        help="answer queries at a prompt, or line by line from a pipe, with the models loaded once",
        description="A line is a query; ':help' tells how to write one. Options hold until a line changes them.",
    )
    shell.add_argument("collection", metavar="COLLECTION")
    add_filter(shell)
    add_min_relevance(shell)
    shell.add_argument("-k", type=positive, default=10, help="how many hits (default 10)")
    shell.add_argument("--json", action="store_true", help="print one JSON object for each query and nothing else")
    shell.add_argument("--space", help="refuse the collection if it was made with another space")
    add_device(shell)

    info = commands.add_parser("info", help="tell what a collection holds")
    info.add_argument("collection", metavar="COLLECTION")
    info.add_argument("--json", action="store_true", help="print one JSON object")

    remove = commands.add_parser("remove", help="forget items; the files themselves stay")
    remove.add_argument("collection", metavar="COLLECTION")
    remove.add_argument("paths", metavar="PATH", nargs="+", help="files, or folders with all that is below them")

    _add_upkeep(commands)

    bench = commands.add_parser(
        "bench",
        help="measure how fast this machine encodes your media, and what limits it",
        description="Nothing is written to any collection. Without MEDIA it makes some up.",
    )
    bench.add_argument("media", metavar="MEDIA", nargs="*", help="collections, files and folders")
    bench.add_argument("--space", help="a space's name or folder (default: that of the first collection)")
    bench.add_argument("--seconds", type=seconds, default=60.0, help="how long it may take, about (default 60)")
    bench.add_argument("--json", action="store_true", help="print one JSON object")
    add_device(bench)

    add_alignment(commands)
    add_learning(commands)
    add_evaluation(commands)
    add_fused(commands)

    spaces = commands.add_parser("spaces", help="list the spaces")
    spaces.add_argument("--json", action="store_true", help="print one JSON object")

    pull = commands.add_parser("pull", help="fetch and check the weights of a space, to work offline from then on")
    pull.add_argument("space", metavar="SPACE", nargs="?", help="a space's name or folder (default: trivium-base)")

    cache = commands.add_parser("cache", help="tell what is kept outside of collections, and delete it")
    deletion = cache.add_mutually_exclusive_group()
    deletion.add_argument(
        "--clear",
        nargs="?",
        const="features",
        choices=CACHE_PARTS,
        help="delete a part of it, features if none is named; what is needed is fetched or made again",
    )
    deletion.add_argument(
        "--forget", metavar="FILE", nargs="+", help="delete what is kept of the content of some pictures and sounds"
    )
    cache.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: Without the program's name; None for a process's own, whose signals and streams are then taken care
            of too.
    """
    if arguments is None:
        streams.settle()
        interrupts.install()
    try:
        parser = build_parser()
        options = parser.parse_args(name_texts(sys.argv[1:] if arguments is None else list(arguments)))
        from trivium.pipeline.cli import commands

        status = commands.run(options)
        interrupts.finished()
        return status
    except KeyboardInterrupt as error:
        return interrupts.ended(error)
    except Exception as error:  # of importing: no memory, or a package that is broken
        print(f"trivium: {printable(failures.told(error))}", file=sys.stderr)
        return EXIT_FAILED


def add_query(parser: argparse.ArgumentParser) -> None:
    """Let the user say what to look for, and how to show it."""
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="what to look for")
    for option, modality in zip(PART_OPTIONS, MODALITIES, strict=True):
        metavar = "TEXT" if modality == "text" else "FILE"
        parser.add_argument(option, metavar=metavar, action="append", default=[], help=f"a query by {modality}")
    add_filter(parser)
    add_min_relevance(parser)
    parser.add_argument("-k", type=positive, default=10, help="how many hits (default 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--html", metavar="FILE", help="also write a page that shows and plays the hits")
    parser.add_argument(
        EXPLAIN,
        metavar="FOLDER",
        nargs="?",
        const=EXPLANATIONS,
        help="tell which words, seconds and regions held up the score of the first hits; pictures of the regions are "
        f"written to FOLDER (default ./{EXPLANATIONS})",
    )
    parser.add_argument(
        "--explain-hits", type=positive, metavar="N", default=5, help="how many hits to explain (default 5)"
    )


def name_texts(arguments: list[str]) -> list[str]:
    """Let ``trivium search C --only image "2:beach" "-crowd" --image -dull.jpg`` mean what it says.

    argparse takes each word with a leading dash for an option, and no further words after an option. In a search, every
    word that is neither the collection, nor an option, nor its value, is a text of the query: it is handed on as
    ``--text=-crowd``, and a file with a leading dash as ``--image=-dull.jpg``. The word after ``--explain`` is its
    folder, unless it is all there is to look for.
    """
    if arguments[:1] != ["search"]:
        return arguments
    named = ["search"]
    words = iter(arguments[1:])
    has_collection = only_texts = may_be_folder = False
    folder: str | None = None
    for word in words:
        may_be_folder, was_explain = word == EXPLAIN and has_collection, may_be_folder
        is_option = not only_texts and (word.startswith("--") or SEARCH_LETTERS.fullmatch(word) is not None)
        if word == "--" and not only_texts:
            only_texts = True
        elif is_option and word == EXPLAIN:  # with a value: argparse would take the next word, whatever it is
            named.append(f"{EXPLAIN}={EXPLANATIONS}")
        elif is_option and word in VALUE_OPTIONS:
            value = next(words, None)
            named += [word] if value is None else [f"{word}={value}"] if word.startswith("--") else [word, value]
        elif is_option:
            named.append(word)
        elif not has_collection:
            has_collection = True
            named.append(word)
        else:
            named.append(f"--text={word}")
            if was_explain and not only_texts and not word.startswith("-"):
                folder = named[-1]
    parts = [word for word in named if word.startswith(tuple(f"{option}=" for option in PART_OPTIONS))]
    if folder is not None and len(parts) > 1:
        named.remove(folder)
        named.append(folder.replace("--text", EXPLAIN, 1))
    return named


def _add_upkeep(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands that look after a collection."""
    verify = commands.add_parser("verify", help="look for damage: exit status 0 is sound, 1 damaged")
    verify.add_argument("collection", metavar="COLLECTION")
    verify.add_argument("--read-data", action="store_true", help="read every byte and compare its hash")
    verify.add_argument("--media", action="store_true", help="compare the media with what was indexed too")
    verify.add_argument(
        "--part",
        type=part,
        metavar="N/M",
        help="of --read-data and --media, read the Nth of M parts: M runs, 1/M to M/M, read everything",
    )
    verify.add_argument("--json", action="store_true", help="print one JSON object")

    backup = commands.add_parser(
        "backup",
        help="copy a collection, checked, to another folder, also while it is written to",
        description="The copy is a collection too: `verify`, `search` and `info` take it.",
    )
    backup.add_argument("collection", metavar="COLLECTION")
    backup.add_argument("target", metavar="TARGET", help="a folder that does not exist yet")
    backup.add_argument(
        "--replace",
        action="store_true",
        help="TARGET is an earlier backup of this collection: replace it, and copy only what is new",
    )
    backup.add_argument("--json", action="store_true", help="print one JSON object")

    restore = commands.add_parser(
        "restore", help="make a collection of a backup; one that is there is moved aside, not deleted"
    )
    restore.add_argument("backup", metavar="BACKUP")
    restore.add_argument("collection", metavar="COLLECTION")
    restore.add_argument("--json", action="store_true", help="print one JSON object")

    rebuild = commands.add_parser("rebuild", help="make the index anew from the stored vectors")
    rebuild.add_argument("collection", metavar="COLLECTION")
    add_wish(rebuild)

    compact = commands.add_parser("compact", help="really delete what was removed, and merge small files")
    compact.add_argument("collection", metavar="COLLECTION")

    export = commands.add_parser("export", help="write items and vectors to a .parquet or .npy file")
    export.add_argument("collection", metavar="COLLECTION")
    export.add_argument("file", metavar="FILE", help="NAME.parquet, or NAME.npy (with NAME.jsonl and NAME.json)")
    add_filter(export)
    export.add_argument("--overwrite", action="store_true", help="replace files of these names")

    import_ = commands.add_parser("import", help="take in vectors from a .parquet or .npy file")
    import_.add_argument("collection", metavar="COLLECTION", help="the collection's folder; made if it does not exist")
    import_.add_argument("file", metavar="FILE")
    import_.add_argument("--space", help="for a new collection: a space's name or folder")
    import_.add_argument(
        "--assume-space",
        action="store_true",
        help="the file does not say which space its vectors are of: take the collection's, and scale them to length 1",
    )
    import_.add_argument("--positions", action="store_true", help="keep from metadata where media were made")
    import_.add_argument("--json", action="store_true", help="print one JSON object")

    migrate = commands.add_parser("migrate", help="encode everything in another space, then search that one")
    migrate.add_argument("collection", metavar="COLLECTION")
    migrate.add_argument("--space", required=True, help="a space's name or folder (see `trivium spaces`)")
    migrate.add_argument("--drop-missing", action="store_true", help="give up items whose files are gone or changed")
    migrate.add_argument("--json", action="store_true", help="print one JSON object")
    add_device(migrate)


if __name__ == "__main__":
    sys.exit(main())
