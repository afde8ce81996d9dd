"""What each command does: results on standard output, progress and messages on standard error."""

import argparse
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.encoders.base import Modality
from trivium.encoders.weights import WeightsError, damaged_files, weights_folder
from trivium.pipeline.allocation import keep_freed_memory
from trivium.pipeline.cli import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_LOCKED, EXIT_SKIPPED, EXIT_USAGE
from trivium.pipeline.collection import Collection
from trivium.pipeline.database import CollectionError, CollectionLockedError
from trivium.pipeline.ingestion import Progress, Summary
from trivium.pipeline.page import printable, query_html, render_page
from trivium.pipeline.query import QueryError, QueryPart, parse_part
from trivium.pipeline.space_config import SpaceError, read_space_config
from trivium.pipeline.spaces import DEFAULT_SPACE, load_space, space_folders

if TYPE_CHECKING:
    from trivium.pipeline.retrieval import Hit

SKIPPED_SHOWN = 50  # in the terminal; --json has all of them


class UsageError(Exception):
    """An option that cannot be followed on this machine."""


def run(options: argparse.Namespace) -> int:
    """Run the command that was asked for; every expected failure becomes one message and an exit status."""
    command: Callable[[argparse.Namespace], int] = COMMANDS[options.command]
    try:
        return command(options)
    except (QueryError, UsageError) as error:
        return _fail(error, EXIT_USAGE)
    except CollectionLockedError as error:
        return _fail(error, EXIT_LOCKED)
    except (CollectionError, SpaceError, WeightsError, sqlite3.Error) as error:
        return _fail(error, EXIT_FAILED)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return EXIT_FAILED
    except OSError as error:
        return _fail(error, EXIT_FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted; what was done is kept, run again to go on", EXIT_INTERRUPTED)


def index(options: argparse.Namespace) -> int:
    """Make a collection or bring it up to date."""
    started = time.perf_counter()
    with Collection.open(
        options.collection, space=options.space, device=_device(options.device), announce=_announce
    ) as collection:
        if not any(os.path.lexists(path) for path in options.media):
            raise CollectionError(f"no such file or folder: {', '.join(map(printable, options.media))}")
        summary = index_with_progress(collection, options.media, captions=not options.no_captions)
    seconds = time.perf_counter() - started
    if options.json:
        print(json.dumps(_summary_json(summary, seconds)))
    else:
        _print_summary(summary, seconds, collection)
    return EXIT_SKIPPED if options.strict and summary.skipped else 0


def search(options: argparse.Namespace) -> int:
    """Find items and show them."""
    parts = [parse_part("text", text) for text in [*options.texts, *options.text]]
    parts += [parse_part("image", file) for file in options.image]
    parts += [parse_part("audio", file) for file in options.audio]
    with Collection.open(
        options.collection, space=options.space, device=_device(options.device), announce=_announce
    ) as collection:
        hits = collection.search_parts(parts, k=options.k, only=options.only)
        space = collection.space.space.name
    if options.html:
        _write_page(Path(options.html), parts, hits, collection=options.collection, space=space)
    if options.json:
        query = [{"modality": part.modality, "item": part.item, "weight": part.weight} for part in parts]
        fields = ("path", "modality", "score", "caption", "matched")
        found = [{field: getattr(hit, field) for field in fields} for hit in hits]
        print(json.dumps({"query": query, "space": space, "hits": found}))
    else:
        print_hits(hits)
    return 0


def info(options: argparse.Namespace) -> int:
    """Tell what a collection holds."""
    with Collection.open(options.collection) as collection:
        told = asdict(collection.info())
    if options.json:
        print(json.dumps(told))
        return 0
    space = told["space"]
    print(f"collection  {printable(told['folder'])}")
    print(f"space       {space['name']} ({space['dim']} dimensions, revision {space['revision']})")
    print(f"items       {_counted(told['items'])}")
    print(f"vectors     {told['vectors']:,}")
    print(f"on disk     {told['size_bytes'] / 1e6:,.1f} MB")
    return 0


def remove(options: argparse.Namespace) -> int:
    """Forget items."""
    with Collection.open(options.collection) as collection:
        count = collection.remove(options.paths)
    print(f"forgot {count:,} {'item' if count == 1 else 'items'}; the files were not touched")
    return 0


def spaces(options: argparse.Namespace) -> int:
    """List the spaces."""
    listed = []
    for name, folder in space_folders().items():
        try:
            config = read_space_config(folder)
        except SpaceError as error:
            print(f"warning: {error}", file=sys.stderr)
            continue
        listed.append(
            {
                "name": name,
                "dim": config.space.dim,
                "revision": config.space.revision,
                "encoders": {modality: encoder.backbone for modality, encoder in config.encoders.items()},
                "description": config.description,
                "default": name == DEFAULT_SPACE,
            }
        )
    if options.json:
        print(json.dumps({"spaces": listed}))
        return 0
    for space in listed:
        encoders: Any = space["encoders"]
        print(f"{space['name']}{'  (default)' if space['default'] else ''}")
        print(f"    {space['dim']} dimensions, " + ", ".join(f"{m}: {b}" for m, b in encoders.items()))
        print(f"    {space['description']}")
    return 0


def pull(options: argparse.Namespace) -> int:
    """Fetch what a space needs; check every byte of what was fetched before."""
    import shutil

    space = load_space(options.space or DEFAULT_SPACE, announce=_announce)
    for weights in space.weights():
        folder = weights_folder(weights)
        if folder.is_dir() and (damaged := damaged_files(weights)):
            _announce(f"{weights.name} in the cache is damaged ({', '.join(damaged)}): fetching it again")
            shutil.rmtree(folder)
    space.pull()
    for weights in space.weights():
        print(f"{weights.name:20} {weights.licence:42} {weights_folder(weights)}")
    return 0


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "index": index,
    "search": search,
    "info": info,
    "remove": remove,
    "spaces": spaces,
    "pull": pull,
}


def index_with_progress(
    collection: Collection, media: Sequence[str | os.PathLike[str]], *, captions: bool = True
) -> Summary:
    """Add media to a collection, with a progress bar for each modality on standard error."""
    keep_freed_memory()
    with _progress_bar() as progress:
        return collection.add(media, captions=captions, progress=progress)


def _fail(error: object, status: int) -> int:
    print(f"trivium: {printable(str(error))}", file=sys.stderr)
    return status


def _announce(line: str) -> None:
    print(f"trivium: {line}", file=sys.stderr)


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        raise UsageError(f"--device {wanted} cannot be used: {str(error).splitlines()[0]}") from error
    return wanted


@contextmanager
def _progress_bar() -> Iterator[Progress]:
    """Show a bar for each modality on standard error, with items per second and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description:>6}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:>6.1f}/s"),
        TimeRemainingColumn(),
    )
    tasks: dict[Modality, tuple[Any, float]] = {}
    with RichProgress(*columns, console=Console(stderr=True)) as bars:

        def show(modality: Modality, done: int, total: int) -> None:
            if modality not in tasks:
                tasks[modality] = (bars.add_task(modality, total=total, rate=0.0), time.perf_counter())
            task, started = tasks[modality]
            bars.update(task, completed=done, rate=done / max(time.perf_counter() - started, 1e-3))

        yield show


def _summary_json(summary: Summary, seconds: float) -> dict[str, Any]:
    counts = ("added", "changed", "renamed", "unchanged", "removed", "ignored")
    return {
        "indexed": summary.indexed,
        **{name: getattr(summary, name) for name in counts},
        "skipped": [asdict(problem) for problem in summary.skipped],
        "encoded": dict(summary.encoded),
        "stage_seconds": {stage: round(spent, 3) for stage, spent in summary.seconds.items()},
        "seconds": round(seconds, 3),
    }


def _print_summary(summary: Summary, seconds: float, collection: Collection) -> None:
    done = f"{summary.indexed:,} indexed ({summary.added:,} new, {summary.changed:,} changed)"
    rest = {"unchanged": summary.unchanged, "renamed": summary.renamed, "removed": summary.removed}
    print(
        ", ".join(
            [
                done,
                *(f"{count:,} {what}" for what, count in rest.items()),
                f"{len(summary.skipped):,} skipped",
            ]
        )
    )
    for problem in summary.skipped[:SKIPPED_SHOWN]:
        print(f"  skipped {printable(problem.path)}: {printable(problem.reason)}")
    if len(summary.skipped) > SKIPPED_SHOWN:
        print(f"  and {len(summary.skipped) - SKIPPED_SHOWN:,} more (--json lists all)")
    if summary.ignored:
        print(f"{summary.ignored:,} files of other kinds were passed over")
    rates = [
        f"{modality} {count / summary.seconds[modality]:.1f}/s"
        for modality, count in summary.encoded.items()
        if count and summary.seconds.get(modality)
    ]
    took = f"{seconds:.1f} s" + (f" (vectors made: {', '.join(rates)})" if rates else "")
    print(f"{printable(str(collection.folder))} was brought up to date in {took}")


def print_hits(hits: "list[Hit]") -> None:
    """Print hits, best first: a table in a terminal, else a line with tabs for each."""
    if not hits:
        print("no hits: the collection has no such items")
        return
    rows = [(f"{h.score:.3f}", h.modality, printable(h.caption or ""), printable(_short(h.path))) for h in hits]
    if not sys.stdout.isatty():
        print("\n".join("\t".join(row) for row in rows))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("score", justify="right")
    table.add_column("")
    table.add_column("caption", ratio=3, overflow="fold")
    table.add_column("file", ratio=4, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # Text, not str: a caption's [brackets] are no markup
    Console().print(table)


def _short(path: str) -> str:
    """Name a path relative to where the user is, if it lies below."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


def _write_page(target: Path, parts: list[QueryPart], hits: "list[Hit]", *, collection: str, space: str) -> None:
    heading = query_html([(part.weight, part.modality, part.item) for part in parts], target=target)
    note = f"{len(hits)} hits in {printable(str(collection))}, space {space}"
    page = render_page("Trivium search", [(heading, hits)], target=target, note=note)
    target.write_text(page, encoding="utf-8")
    _announce(f"wrote {printable(str(target))}")


def _counted(items: Mapping[str, int]) -> str:
    total = sum(items.values())
    return f"{total:,}" + (f" ({', '.join(f'{count:,} {m}' for m, count in items.items())})" if items else "")
