"""What the commands show: results on standard output, progress and messages on standard error.

All that is printed is printed here, and made safe to show here, whatever it holds and wherever it came from.
"""

import functools
import io
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from trivium.pipeline.escaping import printable
from trivium.pipeline.explain.lines import lines_of
from trivium.pipeline.ingest.scanning import fingerprint
from trivium.pipeline.progress import Bars
from trivium.pipeline.store.filters import FilterError

if TYPE_CHECKING:
    from trivium.encoders.engine import Stats
    from trivium.encoders.sandbox.pool import DecodeSandbox
    from trivium.pipeline.explain.drops import Explanation
    from trivium.pipeline.search.retrieval import Hit
    from trivium.pipeline.upkeep.duplicates import DuplicateGroup, Duplicates

PROBLEMS_SHOWN = 50
TOLD_SHARE = 0.01  # of the processor's time
MAX_CHARACTERS = 240  # of an excerpt
MAX_FILE_BYTES = 64 << 20  # no larger text is indexed


def fail(error: object, status: int) -> int:
    """Tell why a command failed; return its exit status."""
    _print(f"trivium: {message_of(error)}".split("\n"), file=sys.stderr)
    return status


def message_of(error: object) -> str:
    """Return what an error says, safe to show: one line, but of a filter also those that point at the place."""
    lines = str(error).splitlines() if isinstance(error, FilterError) else [str(error)]
    return "\n".join(map(printable, lines))


def announce(line: str) -> None:
    """Tell what goes on."""
    _print([f"trivium: {line}"], file=sys.stderr)


def say(*lines: object, flush: bool = False) -> None:
    """Print results, each on a line of its own, with control characters escaped; without any, an empty line."""
    _print(lines, file=sys.stdout, flush=flush)


def say_list(name: str, lines: Sequence[object]) -> None:
    """Print the first of some lines beside their name, and how many more there are; nothing if there are none."""
    for place, line in enumerate(lines[:PROBLEMS_SHOWN]):
        say(f"{name if place == 0 else '':12}{printable(line)}")
    if len(lines) > PROBLEMS_SHOWN:
        say(f"{'':12}and {len(lines) - PROBLEMS_SHOWN:,} more (--json lists all)")


def say_cells(rows: Iterable[Iterable[object]]) -> None:
    """Print a line for each row, with tabs between its cells."""
    for row in rows:
        print("\t".join(map(printable, row)))


@dataclass(slots=True)
class ShownTable:
    """A table for the terminal: columns by their names, with rich's options, and rows."""

    columns: Mapping[str, Mapping[str, Any]]
    rows: list[Sequence[object]] = field(default_factory=list)

    def add_row(self, *cells: object) -> None:
        """Add one cell for each column."""
        self.rows.append(cells)


def say_table(shown: ShownTable, *, title: str = "") -> None:
    """Print a table, below a title if there is one."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name, options in shown.columns.items():
        table.add_column(name, **options)
    for row in shown.rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # Text: [brackets] are no markup then
    console = Console(highlight=False)
    if title:
        console.print(Text(f"\n{printable(title)}", style="bold"))
    console.print(table)


def _print(lines: Iterable[object], *, file: TextIO, flush: bool = False) -> None:
    print("\n".join(map(printable, lines)), file=file, flush=flush)


@contextmanager
def progress_bars(stats: "Mapping[Any, Stats] | None" = None) -> Iterator[Bars]:
    """Show a bar for each thing that is done, with how many a second and the time left.

    Args:
        stats: By what is done, filled while it is: then a line below the bars tells what limits it.
    """
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    columns = (
        TextColumn("{task.description:>6}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:>6.1f}/s"),
        TimeRemainingColumn(),
    )
    tasks: dict[str, tuple[Any, float]] = {}
    last = time.perf_counter()  # something was told: what is told of next began then
    console = Console(stderr=True)
    bars = RichProgress(*columns, console=console)
    try:
        with Live(bars, console=console, refresh_per_second=10) as live:

            def show(what: str, done: float, total: int) -> None:
                nonlocal last
                if not total:
                    return
                what = printable(what)
                if what not in tasks:
                    tasks[what] = (bars.add_task(what, total=total, rate=0.0), last)
                task, started = tasks[what]
                last = time.perf_counter()
                rate = done / max(last - started, 1e-3)
                bars.update(task, completed=done, total=total, rate=rate)
                limit = limit_of(stats[what]) if stats is not None and what in stats else ""
                live.update(Group(bars, Text(f"{what}: {limit}", style="dim")) if limit else bars)

            try:
                yield show
            finally:
                live.update(bars)
    finally:
        if tasks and not console.is_terminal:  # there Live does not end its last line
            console.line()


def limit_of(stats: "Stats") -> str:
    """Say what limits a run: the processor and what uses it, or the busiest stage and how many items wait for it."""
    stage = stats.limiting()
    if stage is None:
        return ""
    if use := _processor_use(stats):
        return use
    return f"limited by {stage.name}: {stage.busy_share(stats.seconds):.0%} busy, queue {stage.queued:,}"


def index_bars(show: Bars) -> Bars:
    """Give the indexes bars of their own beside those of the media."""
    return lambda modality, done, total: show(f"{modality} index", done, total)


def print_hits(
    hits: "list[Hit]",
    explained: "Mapping[str, Explanation] | None" = None,
    *,
    min_relevance: float | None = None,
) -> None:
    """Print hits, best first: a table in a terminal, else a line with tabs for each.

    Args:
        hits: What was found.
        explained: Why, by the paths of some of the hits; None if that was not asked for.
        min_relevance: What was asked of them.
    """
    if not hits:
        nothing = f"nothing relevant: no item is so with a probability of {min_relevance:.0%}" if min_relevance else ""
        say(nothing or "no hits: the collection has no such items")
        return
    rows: list[list[str]] = []
    for hit in hits:
        excerpt = excerpt_of(hit)
        place = "" if excerpt else place_of(hit)
        shown = " ".join(filter(None, (_short(hit.path), place, f"({told})" if (told := copies_told(hit)) else "")))
        score = f"{hit.score:.3f}" if hit.relevance is None else f"{hit.score:.3f} {hit.relevance:4.0%}"
        if hit.is_missing:
            shown += " (missing)"
        row = [score, hit.modality, excerpt or hit.caption or "", shown]
        if explained is not None:
            row.append("; ".join(_why(explained.get(hit.path))))
        rows.append(row)
    if not sys.stdout.isatty():
        say_cells(rows)
        return
    folds = {"overflow": "fold"}
    columns: dict[str, Mapping[str, Any]] = {"score": {"justify": "right"}, "": {}}
    columns |= {"caption": {"ratio": 3, **folds}, "file": {"ratio": 4, **folds}}
    if explained is not None:
        columns["because of"] = {"ratio": 4, **folds}
    say_table(ShownTable(columns, list(rows)))


def say_paths(paths: Iterable[str], *, end: bytes) -> None:
    """Print paths byte for byte as the disk has them, unescaped: for programs."""
    say_bytes(b"".join(os.fsencode(path) + end for path in paths))


def say_bytes(data: bytes) -> None:
    """Print bytes as they are, or, where standard output takes text alone, as the text that they are."""
    sys.stdout.flush()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        sys.stdout.write(os.fsdecode(data))


def print_stats(stats: "Mapping[Any, Stats]") -> None:
    """Print what each stage did for each kind of file, and what limited it: ``cpu`` is a share of all cores' time."""
    say(f"{'':8}{'stage':10}{'items':>9}{'items/s':>10}{'workers':>9}{'busy':>7}{'cpu':>6}")
    for kind, of in stats.items():
        seconds, limiting, shares, use = of.seconds, of.limiting(), of.processor_shares(), _processor_use(of)
        for stage in of.stages:
            cpu = f"{shares[stage.name]:6.0%}" if shares else ""
            mark = "  <- limits" if stage is limiting and not use else ""
            say(
                f"{kind:8}{stage.name:10}{stage.items:9,}{stage.items / max(seconds, 1e-9):10,.1f}{stage.workers:9}"
                f"{stage.busy_share(seconds):7.0%}{cpu}{mark}"
            )
        if use:
            say(f"{kind:8}{use}")


def print_problems(lines: Sequence[str], *, count: int | None = None) -> None:
    """Print the first of some problems, and how many more there are: of ``count``, if there are more than lines."""
    listed, count = len(lines), len(lines) if count is None else count
    for line in lines[:PROBLEMS_SHOWN]:
        say(f"  {line}")
    if count > PROBLEMS_SHOWN:
        say(f"  and {count - PROBLEMS_SHOWN:,} more (--json lists {'all' if listed == count else f'{listed:,}'})")


def place_of(hit: "Hit") -> str:
    """Say where in an item a hit is: ``at 01:23``, or which characters of a text; empty if it is the whole."""
    if hit.start is None:
        return ""
    if hit.matched == "passage":
        return f"characters {hit.start:.0f} to {hit.stop:.0f}"
    return f"at {clock(hit.start)}"


def copies_told(hit: "Hit") -> str:
    """Say how many copies a hit stands for; empty if none."""
    count = len(hit.copies)
    return f"and {count:,} {'copy' if count == 1 else 'copies'}" if count else ""


def duplicates_told(group: "DuplicateGroup") -> str:
    """Say what a group of duplicates is."""
    alike = "equal" if group.is_equal else "look the same"
    return f"{group.kind}: {len(group.files):,} files, {alike}; {group.freed_bytes / 1e6:,.1f} MB to be freed"


def freed_told(found: "Duplicates") -> str:
    """Say what all groups of duplicates come to."""
    groups = f"{len(found.groups):,} group{'' if len(found.groups) == 1 else 's'}"
    return f"{groups}; keeping the first file of each would free {found.freed_bytes / 1e6:,.1f} MB"


def clock(seconds: float) -> str:
    """Write a time as players do: 01:23, or 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def excerpt_of(hit: "Hit") -> str | None:
    """Return how the passage of a hit begins, on one line; None if it has none, or its file is not as it was."""
    if hit.matched != "passage" or hit.start is None or hit.stop is None:
        return None
    from trivium.encoders.base import DecodeError, SandboxError
    from trivium.encoders.decoding.documents import PAGE_BREAK, is_document, page_of
    from trivium.encoders.decoding.texts import decode_text
    from trivium.encoders.files.reading import read_file

    try:
        if fingerprint(os.lstat(hit.path)) != hit.fingerprint:
            return None
        start, stop = int(hit.start), int(hit.stop)
        data = read_file(hit.path, max_bytes=MAX_FILE_BYTES)
        is_paged = is_document(data)
        text = _sandbox().text(data, most=stop + 1) if is_paged else decode_text(data, most=stop + 1)
    except (OSError, DecodeError, SandboxError):
        return None
    page = f"page {page_of(text, start):,}: " if is_paged and PAGE_BREAK in text else ""
    words = " ".join(text[start:stop].split())
    is_cut = stop < len(text)
    if len(words) > MAX_CHARACTERS:
        words, is_cut = words[:MAX_CHARACTERS].rsplit(" ", 1)[0], True
    if not words:
        return None
    return page + ("… " if start else "") + words + (" …" if is_cut else "")


@functools.cache
def _sandbox() -> "DecodeSandbox":
    """Return one for the excerpts of documents."""
    from trivium.encoders.sandbox.pool import DecodeSandbox

    return DecodeSandbox(workers=1)


def counted(items: Mapping[Any, int]) -> str:
    """Write counts by modality, and their sum."""
    total = sum(items.values())
    return f"{total:,}" + (f" ({', '.join(f'{count:,} {m}' for m, count in items.items())})" if items else "")


def _processor_use(stats: "Stats") -> str:
    """Say which stages use the processor, if together they use all of it; else nothing."""
    if not stats.fills_processor():
        return ""
    (most, share), *others = stats.processor_shares().items()
    rest = [f"{name} {other:.0%}" for name, other in others if other >= TOLD_SHARE]
    return f"the processor is fully used: {', '.join([f'{most} takes {share:.0%} of it', *rest])}"


def _why(explanation: "Explanation | None") -> list[str]:
    if explanation is None:
        return []
    overlay = [] if explanation.overlay is None else [f"regions: {_short(explanation.overlay)}"]
    return lines_of(explanation) + overlay


def _short(path: str) -> str:
    """Name a path relative to where the user is, if it lies below."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
