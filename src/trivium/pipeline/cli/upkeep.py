"""What the commands do that look after a collection: verify, backup, restore, rebuild, compact, and so on."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.pipeline.cli.ends import EXIT_FAILED, Command
from trivium.pipeline.cli.options import (
    UsageError,
    add_device,
    add_filter,
    add_json,
    add_wish,
    filter_of,
    open_collection,
    part,
    wish_of,
)
from trivium.pipeline.cli.terminal import (
    announce,
    duplicates_told,
    freed_told,
    index_bars,
    print_problems,
    progress_bars,
    say,
)
from trivium.pipeline.collection import Collection
from trivium.pipeline.escaping import printable
from trivium.pipeline.records import ItemKind
from trivium.pipeline.upkeep.backup import backup as backup_folder
from trivium.pipeline.upkeep.backup import restore as restore_folder
from trivium.pipeline.upkeep.verification import verify as verify_folder

if TYPE_CHECKING:
    from trivium.encoders.engine import Stats
    from trivium.pipeline.upkeep.snapshot import Snapshot


def verify_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium verify`."""
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder")
    parser.add_argument("--read-data", action="store_true", help="read every byte and compare its hash")
    parser.add_argument("--media", action="store_true", help="compare the media with what was indexed too")
    parser.add_argument(
        "--part",
        type=part,
        metavar="N/M",
        help="of --read-data and --media, read the Nth of M parts: M runs, 1/M to M/M, read everything",
    )
    add_json(parser)


def verify(options: argparse.Namespace) -> int:
    """Look for damage."""
    if options.part is not None and not (options.read_data or options.media):
        raise UsageError("--part says how much of --read-data or --media is read: give one of them too")
    with progress_bars() as show:
        found = verify_folder(
            Path(options.collection),
            read_data=options.read_data,
            media=options.media,
            part=options.part,
            progress=lambda done, total: show("MB", done // 10**6, total // 10**6),
        )
    if options.json:
        told = {"sound": found.is_sound, "files": found.files, "bytes_read": found.bytes_read, "part": options.part}
        say(json.dumps({**told, "findings": [asdict(finding) for finding in found.findings]}))
    else:
        for finding in found.findings:
            kind = "damage" if finding.is_damage else "note"
            say(f"{kind}: {finding.path}: {finding.what}", f"    {finding.remedy}")
        looked = f"{found.files:,} files looked at, {found.bytes_read / 1e6:,.1f} MB read"
        if options.part is not None:
            looked += ", part {} of {}".format(*options.part)
        say(f"{printable(options.collection)} is {'sound' if found.is_sound else 'damaged'} ({looked})")
    return 0 if found.is_sound else EXIT_FAILED


def backup_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium backup`."""
    parser.description = "The copy is a collection too: `verify`, `search` and `info` take it."
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder")
    parser.add_argument("target", metavar="TARGET", help="a folder that does not exist yet")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="TARGET is an earlier backup of this collection: replace it, and copy only what is new",
    )
    add_json(parser)


def backup(options: argparse.Namespace) -> int:
    """Copy a collection."""
    with progress_bars() as show:
        done = backup_folder(
            Path(options.collection),
            Path(options.target),
            replace=options.replace,
            progress=lambda read, total: show("MB", read // 10**6, total // 10**6),
        )
    if options.json:
        say(json.dumps(asdict(done)))
        return 0
    _tell_copied(done)
    say(f"{printable(options.target)} is a backup of {printable(options.collection)}, generation {done.generation:,}")
    return 0


def restore_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium restore`."""
    parser.add_argument("backup", metavar="BACKUP")
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder")
    add_json(parser)


def restore(options: argparse.Namespace) -> int:
    """Make a collection of a backup."""
    with progress_bars() as show:
        done = restore_folder(
            Path(options.backup),
            Path(options.collection),
            progress=lambda read, total: show("MB", read // 10**6, total // 10**6),
        )
    moved = None if done.moved_to is None else str(done.moved_to)
    if options.json:
        say(json.dumps({**asdict(done.snapshot), "moved_to": moved}))
        return 0
    _tell_copied(done.snapshot)
    say(f"{printable(options.collection)} is generation {done.snapshot.generation:,} of {printable(options.backup)}")
    if moved is not None:
        say(f"what was there is now {printable(moved)}: delete it when you no longer need it")
    return 0


def _tell_copied(done: "Snapshot") -> None:
    for note in done.notes:
        say(f"note: {printable(note)}")
    kept = f", {done.bytes_kept / 1e6:,.1f} MB kept of the backup before" if done.bytes_kept else ""
    say(f"{done.files:,} files checked, {done.bytes_copied / 1e6:,.1f} MB copied{kept}")


def rebuild_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium rebuild`."""
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder")
    add_wish(parser)


def rebuild(options: argparse.Namespace) -> int:
    """Make the index anew."""
    with Collection.open(options.collection) as collection, progress_bars() as show:
        collection.rebuild(index=wish_of(options), progress=index_bars(show))
        files = collection.info().indexes
    for file in files.values():
        say(f"{file.modality}: {file.vectors:,} vectors; {file.report['reason']}")
    if not files:
        say("the collection is so small that all vectors are compared; it needs no index files")
    return 0


def compact_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium compact`."""
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder")


def compact(options: argparse.Namespace) -> int:
    """Really delete what was removed."""
    with Collection.open(options.collection) as collection, progress_bars() as show:
        done = collection.compact(progress=lambda moved, total: show("vectors", moved, total))
    say(
        f"{done.vectors_removed:,} vectors deleted, {done.thumbnails_removed:,} of the thumbnails; "
        f"{done.shards_before:,} files of vectors are now "
        f"{done.shards_after:,}; {done.bytes_before / 1e6:,.1f} MB are now {done.bytes_after / 1e6:,.1f}"
    )
    return 0


def duplicates_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium duplicates`."""
    parser.description = "Nothing is deleted: which copy to keep is yours to say."
    parser.add_argument("collection", metavar="COLLECTION")
    parser.add_argument(
        "--near", action="store_true", help="pictures and videos that look the same too, not only equal files"
    )
    parser.add_argument("--html", metavar="FILE", help="also write a page that shows them")
    add_json(parser)


def duplicates(options: argparse.Namespace) -> int:
    """List files that are copies of one another."""
    with Collection.open(options.collection) as collection, progress_bars() as show:
        found = collection.duplicates(near=options.near, progress=lambda done, total: show("looks", done, total))
        if options.html:
            from trivium.pipeline.cli.pages.duplicates import render_duplicates
            from trivium.pipeline.cli.pages.html import write_page

            target = Path(options.html)
            # Equal files look alike: the first of them is shown.
            shown = [f.path for g in found.groups for f in (g.files[:1] if g.is_equal else g.files)]
            thumbnails = collection.thumbnails(dict.fromkeys(shown))
            write_page(target, render_duplicates(found, target=target, thumbnails=thumbnails))
    if options.json:
        groups = [
            {
                "kind": group.kind,
                "equal": group.is_equal,
                "freed_bytes": group.freed_bytes,
                "files": [asdict(f) for f in group.files],
            }
            for group in found.groups
        ]
        problems = [asdict(problem) for problem in found.problems]
        say(json.dumps({"groups": groups, "freed_bytes": found.freed_bytes, "problems": problems}))
        return 0
    for number, group in enumerate(found.groups, 1):
        say(f"{number}. {duplicates_told(group)}")
        for file in group.files:
            size = "missing" if file.size_bytes is None else f"{file.size_bytes:,}"
            say(f"{size:>16}  {printable(file.path)}")
    print_problems([f"{printable(problem.path)}: {printable(problem.reason)}" for problem in found.problems])
    say(f"{freed_told(found)}. Nothing was deleted")
    return 0


def export_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium export`."""
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder")
    parser.add_argument(
        "file",
        metavar="FILE",
        help="NAME.parquet, NAME.npy (with NAME.jsonl and NAME.json), or without vectors NAME.csv",
    )
    add_filter(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files of these names")


def export(options: argparse.Namespace) -> int:
    """Write vectors to a file."""
    with Collection.open(options.collection) as collection, progress_bars() as show:
        count = collection.export(
            options.file,
            filter=filter_of(options),
            overwrite=options.overwrite,
            progress=lambda done, total: show("vectors", done, total),
        )
    say(f"{count:,} {'rows' if options.file.endswith('.csv') else 'vectors'} written to {printable(options.file)}")
    return 0


def import_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium import`."""
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder; made if it does not exist")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--space", help="for a new collection: a space's name or folder")
    parser.add_argument(
        "--assume-space",
        action="store_true",
        help="the file does not say which space its vectors are of: take the collection's, and scale them to length 1",
    )
    parser.add_argument("--positions", action="store_true", help="keep from metadata where media were made")
    add_json(parser)


def import_(options: argparse.Namespace) -> int:
    """Take in vectors made elsewhere."""
    with (
        Collection.open(options.collection, space=options.space, announce=announce) as collection,
        progress_bars() as show,
    ):
        done = collection.import_vectors(
            options.file,
            assume_space=options.assume_space,
            positions=options.positions,
            progress=lambda rows, total: show("vectors", rows, total),
        )
    if options.json:
        say(json.dumps(asdict(done)))
        return 0
    say(
        f"{done.rows:,} rows read: {done.added:,} items new, {done.updated:,} updated; {done.vectors:,} new vectors, "
        f"{done.problem_count:,} rows left out"
    )
    rows = [f"row {problem.row:,}: {printable(problem.reason)}" for problem in done.problems]
    print_problems(rows, count=done.problem_count)
    return 0


def migrate_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium migrate`."""
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder")
    parser.add_argument("--space", required=True, help="a space's name or folder (see `trivium spaces`)")
    parser.add_argument("--drop-missing", action="store_true", help="give up items whose files are gone or changed")
    add_json(parser)
    add_device(parser)


def migrate(options: argparse.Namespace) -> int:
    """Move to another space."""
    stats: dict[ItemKind, Stats] = {}
    with open_collection(options, space=None) as collection, progress_bars(stats) as show:
        done = collection.migrate(
            options.space,
            drop_missing=options.drop_missing,
            progress=show,
            index_progress=index_bars(show),
            stats=stats,
        )
    told: dict[str, Any] = asdict(done)
    if options.json:
        say(json.dumps(told))
    else:
        print_problems([f"{printable(problem.path)}: {printable(problem.reason)}" for problem in done.problems])
        say(f"{done.encoded:,} vectors made in the new space, {done.dropped:,} items dropped")
    if not done.is_done:
        announce(
            "the old space is still the one that is searched: put the files back and run again to go on, or give up "
            "these items with --drop-missing"
        )
        return EXIT_FAILED
    return 0


COMMANDS: Mapping[str, Command] = {
    "verify": Command(verify_options, verify),
    "backup": Command(backup_options, backup),
    "restore": Command(restore_options, restore),
    "rebuild": Command(rebuild_options, rebuild),
    "compact": Command(compact_options, compact),
    "duplicates": Command(duplicates_options, duplicates),
    "export": Command(export_options, export),
    "import": Command(import_options, import_),
    "migrate": Command(migrate_options, migrate),
}
