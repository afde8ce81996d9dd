"""Tables as CSV (RFC 4180, UTF-8, lines that end in CR LF), for other programs and for spreadsheets.

A spreadsheet runs a cell that begins like a formula, quoted or not, and a caption may be anybody's: such cells get an
apostrophe, and control characters are written out (`reading.spreadsheet_cell`). Who wants every character as it is
takes JSON. A path always comes with its bytes where the text is not the whole of it.
"""

import csv
import io
from collections.abc import Iterable, Sequence

from trivium.pipeline.tables.reading import spreadsheet_cell


def csv_of(rows: Iterable[Sequence[object]]) -> bytes:
    """Return rows as lines of CSV; None is an empty cell, half characters are escaped."""
    written = io.StringIO()
    csv.writer(written).writerows([spreadsheet_cell(cell) for cell in row] for row in rows)
    return written.getvalue().encode("utf-8", "backslashreplace")


def path_cells(path: bytes) -> tuple[str, str | None]:
    """Return a path as text, and its bytes in hex if the cell of that text does not tell them."""
    text = path.decode("utf-8", "backslashreplace")
    return text, None if spreadsheet_cell(text).encode() == path else path.hex()
