"""Tables as CSV (RFC 4180, UTF-8, lines that end in CR LF), for other programs.

Cells are as they are: whoever opens a table in a spreadsheet lets it take a caption or name that begins with ``=``,
``+``, ``-`` or ``@`` for a formula, if it is one that does so for quoted cells. To put a sign before them would change
the data for every other program; so the docs say how to open such a table (as text).
"""

import csv
import io
from collections.abc import Iterable, Sequence


def csv_of(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table whose first line has the columns' names; None is an empty cell.

    Text that UTF-8 cannot say (half characters) is escaped with a backslash.
    """
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(header)
    writer.writerows(rows)
    return written.getvalue().encode("utf-8", "backslashreplace").decode()


def shown_path(path: bytes) -> tuple[str, str | None]:
    """Return a path as text, with backslashes for odd bytes, and its bytes in hex if the text does not tell them."""
    try:
        return path.decode(), None
    except UnicodeDecodeError:
        return path.decode(errors="backslashreplace"), path.hex()
