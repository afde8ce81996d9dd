"""Commands that make and describe a collection: `index`, `watch`, `info` and `remove`."""

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trivium.encoders.machine import keep_freed_memory
from trivium.pipeline.cli.ends import EXIT_FAILED, EXIT_MISSING, EXIT_SKIPPED, Command
from trivium.pipeline.cli.options import add_device, add_json, add_wish, open_collection, wish_of
from trivium.pipeline.cli.terminal import (
    announce,
    counted,
    index_bars,
    print_problems,
    print_stats,
    progress_bars,
    say,
    say_list,
)
from trivium.pipeline.collection import Collection
from trivium.pipeline.escaping import printable
from trivium.pipeline.records import IndexFile, ItemKind
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.roots import Root, RootSettings
from trivium.pipeline.suffixes import why_passed

if TYPE_CHECKING:
    from trivium.encoders.engine import StageStats, Stats
    from trivium.pipeline.ingest.settings import Summary

NAME_IT = "name the files and folders to `trivium index` once more (an earlier Trivium did not keep them)"


def index_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium index`."""
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder; made if it does not exist")
    parser.add_argument(
        "media",
        metavar="MEDIA",
        nargs="*",
        help="files and folders; the collection remembers them, and how each is indexed. None: all that it knows",
    )
    parser.add_argument("--space", help="a space's name or folder (see `trivium spaces`)")
    parser.add_argument(
        "--captions",
        action=argparse.BooleanOptionalAction,
        help="search captions too, as at first; without, they are only shown in hits",
    )
    parser.add_argument(
        "--metadata",
        metavar="TABLE",
        action="append",
        default=[],
        help="CSV or JSON lines with a column 'path', for --where; beside NAME.json files, which are always read; of "
        "several, the last counts where they differ",
    )
    parser.add_argument(
        "--positions",
        action=argparse.BooleanOptionalAction,
        help="keep from metadata where media were made; at first it is left out",
    )
    parser.add_argument(
        "--windows",
        type=float,
        metavar="SECONDS",
        help="give sounds a vector for each stretch of so many seconds too, each half over the next, so that hits "
        "say where; 0: none again (at first: 10 for those of more than a minute, none for others)",
    )
    parser.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        help="leave out what matches, in git's syntax, relative to each folder MEDIA, from now on; may be repeated. "
        "Folders' own .triviumignore files say more of that",
    )
    parser.add_argument("--no-exclude", dest="exclude", action="store_const", const=[], help="no such patterns again")
    parser.add_argument(
        "--default-excludes",
        action=argparse.BooleanOptionalAction,
        help="leave out hidden files, and what systems put beside media (Thumbs.db, @eaDir, node_modules ...), as at "
        "first; without, they are taken",
    )
    parser.add_argument("--drop-missing", action="store_true", help="forget all items whose files are gone")
    parser.add_argument(
        "--forget",
        metavar="MEDIA",
        action="append",
        default=[],
        help="forget what was named before, and all items below it; the files stay",
    )
    parser.add_argument(
        "--thumbnails",
        action=argparse.BooleanOptionalAction,
        help="keep small copies of pictures, for pages (at first they are kept; then as before)",
    )
    parser.add_argument("--stats", action="store_true", help="tell what each stage did, and which one limits the run")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="skip files that are cut off or damaged in part, and exit with 3 if a file was skipped, or needs an extra "
        "of Trivium that is not installed",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    add_wish(parser)
    add_device(parser)


def index(options: argparse.Namespace) -> int:
    """Make a collection or bring it up to date."""
    started = time.perf_counter()
    with open_collection(options, space=options.space) as collection:
        if options.media and not any(os.path.lexists(path) for path in options.media):
            raise CollectionError(f"no such file or folder: {', '.join(map(printable, options.media))}")
        for root in options.forget:
            count = collection.forget(root)
            announce(f"forgot {printable(root)} and {count:,} items; the files were not touched")
        if options.forget and not options.media:
            return 0
        if not options.media and not collection.info().roots:
            raise CollectionError(f"{printable(options.collection)} does not know what it was made of: {NAME_IT}")
        summary = index_with_progress(
            collection,
            options.media or None,
            captions=options.captions,
            metadata=options.metadata or None,
            positions=options.positions,
            windows=options.windows,
            exclude=options.exclude,
            default_excludes=options.default_excludes,
            strict=options.strict,
            thumbnails=options.thumbnails,
            index=wish_of(options),
            drop_missing=options.drop_missing,
        )
    seconds = time.perf_counter() - started
    if options.json:
        say(json.dumps(_summary_json(summary, seconds)))
    else:
        _print_summary(summary, seconds, collection)
        if options.stats:
            print_stats(summary.stats)
    if summary.missing:
        return EXIT_MISSING
    return EXIT_SKIPPED if options.strict and (summary.skipped or summary.undecodable) else 0


def watch_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium watch`."""
    parser.description = (
        "What was named to `trivium index` is brought up to date, then watched: a file that comes, changes or goes is "
        "taken in once it is quiet for 2 seconds. Others may search meanwhile. docs/watch.md has a systemd unit."
    )
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder")
    parser.add_argument("--poll", action="store_true", help="look every 5 seconds instead of waiting for events")
    parser.add_argument("--json", action="store_true", help="print each update as one JSON object on a line")
    add_device(parser)


def watch(options: argparse.Namespace) -> int:
    """Keep a collection up to date."""
    keep_freed_memory()
    with open_collection(options, space=None) as collection:
        roots = collection.info().roots
        if not roots:
            raise CollectionError(f"{printable(options.collection)} does not know what it was made of: {NAME_IT}")

        def told(summary: "Summary") -> None:
            if options.json:
                say(json.dumps(_summary_json(summary, sum(summary.seconds.values()))), flush=True)
                return
            counts = {"new": summary.added, "changed": summary.changed, "renamed": summary.renamed}
            counts |= {"removed": summary.removed, "missing": summary.missing, "skipped": len(summary.skipped)}
            line = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
            say(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
            print_skipped(summary)

        announce(f"watching {', '.join(map(printable, roots))}; stop it with Ctrl-C")
        collection.watch(told, poll=options.poll, note=announce)
    return 0


def info_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium info`."""
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder")
    add_json(parser)


def info(options: argparse.Namespace) -> int:
    """Tell what a collection holds."""
    with Collection.open(options.collection) as collection:
        found = collection.info()
        told, indexes = asdict(found), list(found.indexes.values())
    if options.json:
        say(json.dumps(told))
        return 0
    space = told["space"]
    say(f"collection  {printable(told['folder'])}")
    say(f"space       {space['name']} ({space['dim']} dimensions, revision {space['revision']})")
    say(f"items       {counted(told['items'])}")
    if found.missing:
        say(f"missing     {found.missing:,} items, whose files were gone; `--drop-missing` forgets them")
    say(f"vectors     {told['vectors']:,}")
    for file in indexes:
        first, *rest = _described(file)
        say(f"index       {first}", *(f"            {line}" for line in rest))
    say(f"thumbnails  {told['thumbnails']:,}, {told['thumbnail_bytes'] / 1e6:,.1f} MB")
    say(f"on disk     {told['size_bytes'] / 1e6:,.1f} MB")
    say_list("made of", [_root_line(root) for root in found.roots.values()])
    say_list("metadata", [f"{name}: {', '.join(values)}" for name, values in found.metadata.items()])
    say_list("skipped", [f"{path}: {reason}" for path, reason in found.skipped.items()])
    passed = sum((Counter(root.passed) for root in found.roots.values()), Counter[str]())
    say_list("passed over", [f"{n:,} {_suffix(suffix)}: {why_passed(suffix)}" for suffix, n in passed.most_common()])
    return 0


def _root_line(root: Root) -> str:
    """Name a root, and how it is indexed as far as that is not the usual way."""
    usual = asdict(RootSettings())
    other = {name: value for name, value in asdict(root.settings).items() if value != usual[name]}
    told = [
        f"--{name.replace('_', '-')} {' '.join(value)}"
        if value and value is not True
        else f"--{'' if value else 'no-'}{name.replace('_', '-')}"
        for name, value in other.items()
    ]
    return " ".join([root.path, *told])


def remove_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium remove`."""
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder")
    parser.description = "Exit status: 0 if something was forgotten, 1 if nothing was there to forget."
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="files, folders with all that is below them, or patterns in quotes: '*.tmp'",
    )


def remove(options: argparse.Namespace) -> int:
    """Forget items."""
    with Collection.open(options.collection) as collection:
        count = collection.remove(options.paths, on_missing=_tell_missing)
    say(f"forgot {count:,} {'item' if count == 1 else 'items'}; the files were not touched")
    return 0 if count else EXIT_FAILED


def _tell_missing(path: str) -> None:
    announce(f"the collection has nothing at {printable(path)}")


def index_with_progress(
    collection: Collection,
    media: Sequence[str | os.PathLike[str]] | None,
    **asked: Any,
) -> "Summary":
    """Add media to a collection as `Collection.add` is asked, with a progress bar for each modality on standard error.

    Where it is interrupted, it is told how far it came.
    """
    keep_freed_memory()
    stats: dict[ItemKind, Stats] = {}
    came: dict[str, tuple[int, int]] = {}
    try:
        with progress_bars(stats) as show:

            def progress(kind: str, done: float, total: int) -> None:
                came[kind] = int(done), total
                show(kind, done, total)

            return collection.add(media, progress=progress, index_progress=index_bars(show), stats=stats, **asked)
    except KeyboardInterrupt:
        told = [f"{done:,} of {total:,} {kind} files" for kind, (done, total) in came.items()]
        announce(f"{', '.join(told) or 'nothing that was new'} came into the collection")
        raise


def _described(file: IndexFile) -> list[str]:
    report = file.report
    effort = "" if file.effort is None else f", effort {file.effort}"
    lines = [f"{file.modality}: {file.kind}{effort}, {file.vectors:,} vectors, {file.size / 1e6:,.1f} MB"]
    if recall := report.get("recall"):
        queries = report["queries"]
        found = ", ".join(f"{share:.3f} ({queries[modality]} of {modality})" for modality, share in recall.items())
        lines.append(f"recall@10 {found}; {report['milliseconds']:.2g} ms a query")
    return lines + [str(line) for line in (report.get("reason"), *report.get("notes", ())) if line]


def _summary_json(summary: "Summary", seconds: float) -> dict[str, Any]:
    counts = ("added", "changed", "renamed", "unchanged", "removed", "missing", "windowed", "ignored")
    return {
        "indexed": summary.indexed,
        **{name: getattr(summary, name) for name in counts},
        "vanished": [asdict(root) for root in summary.vanished],
        "skipped": [asdict(problem) for problem in summary.skipped],
        "notes": [asdict(note) for note in summary.notes],
        "passed_over": {suffix: asdict(passed) for suffix, passed in summary.passed.items()},
        "excluded": summary.excluded,
        "removed_as_excluded": dict(summary.removed_as_excluded),
        "encoded": dict(summary.encoded),
        "indexes": [{"modality": file.modality, "kind": file.kind, **file.report} for file in summary.indexes],
        "stages": {
            kind: [_stage_json(stage, stats) for stage in stats.stages] for kind, stats in summary.stats.items()
        },
        "stage_seconds": {stage: round(spent, 3) for stage, spent in summary.seconds.items()},
        "seconds": round(seconds, 3),
    }


def _stage_json(stage: "StageStats", stats: "Stats") -> dict[str, Any]:
    share = stats.processor_shares().get(stage.name)
    return {
        "name": stage.name,
        "items": stage.items,
        "workers": stage.workers,
        "busy_share": round(stage.busy_share(stats.seconds), 4),
        "processor_share": None if share is None else round(share, 4),
    }


def _print_summary(summary: "Summary", seconds: float, collection: Collection) -> None:
    done = f"{summary.indexed:,} indexed ({summary.added:,} new, {summary.changed:,} changed)"
    rest = {"unchanged": summary.unchanged, "renamed": summary.renamed, "removed": summary.removed}
    say(
        ", ".join(
            [
                done,
                *(f"{count:,} {what}" for what, count in rest.items()),
                f"{len(summary.skipped):,} skipped",
            ]
        )
    )
    for root in summary.vanished:
        announce(
            f"{printable(root.path)}: {root.reason}; its items are kept (a disk that is not mounted?). If they are "
            f"gone for good, `trivium index {printable(str(collection.folder))} --drop-missing` forgets them"
        )
    if summary.missing:
        say(f"{summary.missing:,} items are missing: kept, though their files are gone")
    print_skipped(summary)
    print_problems([f"note on {printable(note.path)}: {printable(note.reason)}" for note in summary.notes])
    if summary.windowed:
        say(
            f"{summary.windowed:,} sounds that were there and last more than a minute have windows of 10 s now, so "
            "that hits say where (--windows 0: none again)"
        )
    for file in summary.indexes:
        say(f"index of {file.modality}: {file.report['reason']}")
    passed = [f"{over.count:,} {_suffix(suffix)}: {over.reason}" for suffix, over in summary.passed.items()]
    excluded = [f"{count:,} by {printable(pattern)}" for pattern, count in summary.excluded.items()]
    for heading, lines in {"passed over": passed, "excluded": excluded}.items():
        if lines:
            say(f"{heading}:")
            print_problems(lines)
    for pattern, count in summary.removed_as_excluded.items():
        say(f"{count:,} removed: excluded by {printable(pattern)}")
    made = [f"{count:,} {modality}" for modality, count in summary.encoded.items() if count]
    took = f"{seconds:.1f} s" + (f" (vectors made: {', '.join(made)})" if made else "")
    say(f"{printable(str(collection.folder))} was brought up to date in {took}")


def _suffix(suffix: str) -> str:
    return printable(suffix) or "without a suffix"


def print_skipped(summary: "Summary") -> None:
    """Tell what could not be indexed, and why."""
    print_problems([f"skipped {printable(problem.path)}: {printable(problem.reason)}" for problem in summary.skipped])


COMMANDS: Mapping[str, Command] = {
    "index": Command(index_options, index),
    "watch": Command(watch_options, watch),
    "info": Command(info_options, info),
    "remove": Command(remove_options, remove),
}
