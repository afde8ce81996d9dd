"""Tables as CSV: any program reads back what was written, and no spreadsheet runs it."""

import csv
import io

import pytest

from trivium.pipeline.tables.csv_text import csv_of, path_cells


def test_what_is_written_is_read() -> None:
    rows = [("path", "n"), ('a "b", c', 1.5), ("☃\u2028é", None)]
    found = list(csv.reader(io.StringIO(csv_of(rows).decode(), newline="")))
    assert found == [["path", "n"], ['a "b", c', "1.5"], ["☃\u2028é", ""]]


@pytest.mark.parametrize("cell", ["=1+1", "+x", "-x", "@SUM(A1)", '=HYPERLINK("x")'])
def test_no_formula(cell: str) -> None:
    assert next(csv.reader(io.StringIO(csv_of([(cell,)]).decode()))) == [f"'{cell}"]


def test_numbers_and_signs() -> None:
    assert csv_of([(-0.5, "-0.5", "a\x1b\n\udcff")]) == b"-0.5,-0.5,a\\x1b\\n\\udcff\r\n"


def test_paths() -> None:
    assert path_cells("/m/é.jpg".encode()) == ("/m/é.jpg", None)
    assert path_cells(b"/m/\xff.jpg") == ("/m/\\xff.jpg", "2f6d2fff2e6a7067")
    assert bytes.fromhex(path_cells(b"/m/a\nb")[1] or "") == b"/m/a\nb"
