"""The command line: a table of commands, of which only the asked one is imported.

A command's options and what it does stand side by side in the module that the table names (its `COMMANDS`).

Exit status: 0 done (files that could not be indexed are listed, and do not change it), 1 failed or damaged, 2 wrong
usage, 3 with `index --strict` when files were skipped, 4 when `index` keeps items whose files are gone, 75 when another
process is writing, 130 interrupted (143 by SIGTERM, 129 by SIGHUP).
"""

import argparse
import importlib
import itertools
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from trivium.pipeline.cli import ends
from trivium.pipeline.cli.ends import Command
from trivium.version import __version__

EXIT_STATUSES = (
    "Exit status: 0 done, 1 failed or damaged, 2 wrong usage, 3 files skipped (index --strict), 4 items kept whose "
    "files are gone (index), 75 another process is writing to the collection, 130 interrupted (143 by SIGTERM, 129 by "
    "SIGHUP)."
)
NAME_WIDTH = 17  # of the column of names in the list of commands
SHELLS = ("bash", "zsh", "fish")
# Of arguments, whose values a shell completes.
FILES = frozenset({"MEDIA", "FILE", "TABLE", "PATH", "CORPUS", "TARGET", "TEXTS", "SPACE"})
FOLDERS = frozenset({"COLLECTION", "FOLDER", "BACKUP", "MODEL"})


class Listed(NamedTuple):
    """A line of the list of commands."""

    group: str
    help: str
    module: str  # of this package


LIST: Mapping[str, Listed] = {
    "index": Listed("search", "make a collection, or bring it up to date", "collecting"),
    "search": Listed("search", "find items by text, picture, sound, or several at once", "searching"),
    "shell": Listed(
        "search", "answer queries at a prompt, or line by line from a pipe, with the models loaded once", "shell"
    ),
    "info": Listed("collections", "tell what a collection holds", "collecting"),
    "watch": Listed("collections", "keep a collection up to date as files change, until it is stopped", "collecting"),
    "remove": Listed("collections", "forget items; the files themselves stay", "collecting"),
    "verify": Listed("collections", "look for damage: exit status 0 is sound, 1 damaged", "upkeep"),
    "backup": Listed(
        "collections", "copy a collection, checked, to another folder, also while it is written to", "upkeep"
    ),
    "restore": Listed(
        "collections", "make a collection of a backup; one that is there is moved aside, not deleted", "upkeep"
    ),
    "rebuild": Listed("collections", "make the index anew from the stored vectors", "upkeep"),
    "compact": Listed("collections", "really delete what was removed, and merge small files", "upkeep"),
    "duplicates": Listed("collections", "list files that are copies of one another; nothing is deleted", "upkeep"),
    "export": Listed(
        "collections", "write items to a .parquet, .npy or .csv file, but for .csv with their vectors", "upkeep"
    ),
    "import": Listed("collections", "take in vectors from a .parquet or .npy file", "upkeep"),
    "migrate": Listed("collections", "encode everything in another space, then search that one", "upkeep"),
    "spaces": Listed("spaces", "list the spaces", "spaces"),
    "pull": Listed("spaces", "fetch and check the weights of a space, to work offline from then on", "spaces"),
    "cache": Listed("spaces", "tell what is kept outside of collections, and delete it", "spaces"),
    "bench": Listed("spaces", "measure how fast this machine encodes your media, and what limits it", "benching"),
    "align": Listed("spaces", "bring frozen encoders into one space, from tables of what belongs together", "aligning"),
    "evaluate": Listed(
        "spaces",
        "measure how well a space finds what belongs together: recall from any modality to any",
        "evaluating",
    ),
    "zero-shot": Listed("spaces", "measure how well a space names things by the words of their classes", "evaluating"),
    "features": Listed("learning", "write one vector for each row of a table of texts, pictures and sounds", "fusing"),
    "classify": Listed(
        "learning", "train, use and measure a classifier of texts, pictures and sounds together", "fusing"
    ),
    "word-vectors": Listed(
        "learning", "write MiniLM's token embeddings as word vectors, in GloVe's format", "learning"
    ),
    "train-text": Listed(
        "learning",
        "train a text classifier: an LSTM over word vectors, a Transformer, or a fine-tuned encoder",
        "learning",
    ),
    "pretrain-text": Listed(
        "learning", "pre-train a text encoder on texts without labels, as a masked language model", "learning"
    ),
    "distill": Listed(
        "learning", "teach a small text encoder the vectors of a space's own, for faster queries", "learning"
    ),
    "completion": Listed("this program", "print a script with which a shell completes commands and options", "main"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: Without the program's name; None for a process's own, whose signals and streams are then taken care
            of too.
    """
    if arguments is None:
        ends.settle_streams()
        ends.install()
    try:
        words = sys.argv[1:] if arguments is None else [arguments] if isinstance(arguments, str) else arguments
        with ends.escaped_output():
            name, options = parse(words)
            status = _run(command_of(name), options)
        ends.finished()
        return status
    except KeyboardInterrupt as error:
        return ends.ended(error)
    except Exception as error:  # of importing: no memory, or a package that is broken
        from trivium.pipeline.escaping import printable

        print(f"trivium: {printable(ends.told(error))}", file=sys.stderr)
        return ends.EXIT_FAILED


def parse(words: Sequence[str]) -> tuple[str, argparse.Namespace]:
    """Read a command line: the command's name, and its options.

    Raises:
        SystemExit: If it asks for help, or is none.
    """
    if not words or words[0] not in LIST:
        program = program_parser().parse_args(words)  # ends here, but for `-- search ...`
        words = [program.command, *program.words]
    name, *rest = words
    options, unknown = command_parser(name).parse_known_args(command_of(name).words(rest))
    if unknown:
        program_parser().error(f"unrecognized arguments: {' '.join(unknown)}")
    return name, options


def program_parser() -> argparse.ArgumentParser:
    """Return the parser of what stands before a command, and of wrong names of commands."""
    parser = argparse.ArgumentParser(
        prog="trivium",
        usage="trivium [-h] [--version] COMMAND ...",
        description="Search a local collection of pictures, sounds and texts, any by any.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(_listed(shutil.get_terminal_size().columns - 2)),
    )
    parser.add_argument("--version", action="version", version=f"trivium {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=LIST, help=argparse.SUPPRESS)
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS).required = False
    return parser


def _listed(width: int) -> Iterator[str]:
    """Yield the lines of the list of commands, by group, and what exit statuses mean."""
    for group, members in itertools.groupby(LIST.items(), lambda item: item[1].group):
        yield f"{group}:"
        for name, listed in members:
            indent = " " * NAME_WIDTH
            yield textwrap.fill(
                listed.help, width, initial_indent=f"  {name}".ljust(NAME_WIDTH), subsequent_indent=indent
            )
        yield ""
    yield textwrap.fill(EXIT_STATUSES, width)


def command_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of one command."""
    from trivium.pipeline.cli.options import Parser  # what the commands import too

    parser = Parser(prog=f"trivium {name}")
    command_of(name).options(parser)
    return parser


def command_of(name: str) -> Command:
    """Import what does a command."""
    module = importlib.import_module(f"trivium.pipeline.cli.{LIST[name].module}")
    command: Command = module.COMMANDS[name]
    return command


def _run(command: Command, options: argparse.Namespace) -> int:
    """Run a command; every failure becomes one message and an exit status."""
    import sqlite3

    from trivium.encoders.base import SandboxError, WeightsError
    from trivium.encoders.sandbox.mode import asked_for
    from trivium.pipeline.cli.options import UsageError, require_values
    from trivium.pipeline.cli.terminal import fail
    from trivium.pipeline.search.query import QueryError
    from trivium.pipeline.space.config import SpaceError
    from trivium.pipeline.store.database import CollectionError, CollectionLockedError
    from trivium.pipeline.store.filters import FilterError
    from trivium.pipeline.tables.metadata import MetadataError
    from trivium.pipeline.tables.reading import TableError

    try:
        require_values(options)
        with asked_for(getattr(options, "sandbox", None), max_megapixels=getattr(options, "max_megapixels", None)):
            status = command.run(options)
        sys.stdout.flush()  # here, where a full disk can still be told
        return status
    except (QueryError, FilterError, UsageError) as error:
        return fail(error, ends.EXIT_USAGE)
    except CollectionLockedError as error:
        return fail(error, ends.EXIT_LOCKED)
    except (CollectionError, MetadataError, SandboxError, SpaceError, TableError, WeightsError, sqlite3.Error) as error:
        return fail(error, ends.EXIT_FAILED)
    except BrokenPipeError:  # the reader of our output has seen enough
        ends.drop_output()
        return ends.EXIT_FAILED
    except KeyboardInterrupt as error:
        ends.drop_output()  # half an answer is none
        return ends.ended(error)
    except Exception as error:
        ends.drop_output()  # else Python says once more at the end that it could not be written
        return fail(ends.told(error), ends.EXIT_FAILED)


def completion_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium completion`."""
    parser.description = 'For bash: eval "$(trivium completion bash)"; docs/usage.md tells of the others.'
    parser.add_argument("shell", choices=SHELLS)


def completion(options: argparse.Namespace) -> int:
    """Print a script with which a shell completes commands and options."""
    import shtab

    from trivium.pipeline.cli.terminal import say

    parser = argparse.ArgumentParser(prog="trivium")
    parser.add_argument("--version", action="version", version=__version__, help="tell which Trivium this is")
    commands = parser.add_subparsers()
    for name, listed in LIST.items():
        command = commands.add_parser(name, help=listed.help)
        command_of(name).options(command)
        command.description = listed.help  # short: zsh shows it beside the name
        _complete_files(command, shtab)
    say(*shtab.complete(parser, options.shell).split("\n"))
    return 0


def _complete_files(parser: argparse.ArgumentParser, shtab: Any) -> None:
    """Have file names completed where a command takes any; shells complete nothing else there."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, shtab)
            continue
        name = action.metavar or action.dest.upper()
        if name in FILES | FOLDERS and action.choices is None and action.nargs != 0:
            action.complete = shtab.DIRECTORY if name in FOLDERS else shtab.FILE  # type: ignore[attr-defined]
        if action.help:
            action.help = action.help.replace("%%", "%")  # argparse's way to write it, which shtab leaves


COMMANDS: Mapping[str, Command] = {"completion": Command(completion_options, completion)}

if __name__ == "__main__":
    sys.exit(main())
