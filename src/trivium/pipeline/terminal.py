"""What the commands show: results on standard output, progress and messages on standard error."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from trivium.pipeline.page import printable

if TYPE_CHECKING:
    from trivium.pipeline.retrieval import Hit

Bars: TypeAlias = Callable[[str, int, int], None]  # (what, done, to do)


def fail(error: object, status: int) -> int:
    """Tell why a command failed; return its exit status."""
    print(f"trivium: {printable(str(error))}", file=sys.stderr)
    return status


def announce(line: str) -> None:
    """Tell what goes on."""
    print(f"trivium: {line}", file=sys.stderr)


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Show a bar for each thing that is done, with how many a second and the time left."""
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
    tasks: dict[str, tuple[Any, float]] = {}
    with RichProgress(*columns, console=Console(stderr=True)) as bars:

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = (bars.add_task(what, total=total, rate=0.0), time.perf_counter())
            task, started = tasks[what]
            rate = done / max(time.perf_counter() - started, 1e-3)
            bars.update(task, completed=done, total=total, rate=rate)

        yield show


def index_bars(show: Bars) -> Bars:
    """Give the indexes bars of their own beside those of the media."""
    return lambda modality, done, total: show(f"{modality} index", done, total)


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


def counted(items: Mapping[str, int]) -> str:
    """Write counts by modality, and their sum."""
    total = sum(items.values())
    return f"{total:,}" + (f" ({', '.join(f'{count:,} {m}' for m, count in items.items())})" if items else "")


def _short(path: str) -> str:
    """Name a path relative to where the user is, if it lies below."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
