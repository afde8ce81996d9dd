"""Tables of metadata: what is read, which rows are refused and why, and what several say together."""

import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.pipeline.tables import reading as table_file
from trivium.pipeline.tables.metadata import Metadata, MetadataError, decode
from trivium.pipeline.tables.metadata_table import MetadataTable, read_table, said_of


def table(folder: Path, content: str | bytes, name: str = "table.csv", **options: Any) -> MetadataTable:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(file, **options)


def test_a_table_of_empty_lines_ends_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand million of them take a megabyte, gzipped."""
    monkeypatch.setattr(table_file, "MAX_BLANK_LINES", 1_000)
    monkeypatch.setattr(table_file, "MAX_LINES", 3_000)
    rows = b"path,a\n" + b"x.jpg,1\n"
    with pytest.raises(MetadataError, match="has more than 1,000 blank lines: it is no table"):
        table(tmp_path, gzip.compress(rows + b"\n \n" * 501), "t.csv.gz")
    with pytest.raises(MetadataError, match="has more than 3,000 lines: split it into several tables"):
        table(tmp_path, rows + b"x\n" * 3_000)
    assert len(table(tmp_path, rows + b"\n" * 999)) == 1


def test_positions_in_tables(tmp_path: Path) -> None:
    content = "path,GPS Latitude,lon,location,iso\na.jpg,48.1,11.6,München,100\nb.jpg,48.1,11.6,48.1 11.6,200\n"
    read = table(tmp_path, content)
    assert read.of(f"{tmp_path}/a.jpg") == {"location": "München", "iso": 100}
    assert read.of(f"{tmp_path}/b.jpg") == {"iso": 200}
    assert table(tmp_path, content, positions=True).of(f"{tmp_path}/b.jpg") == {
        "GPS Latitude": 48.1,
        "lon": 11.6,
        "location": "48.1 11.6",
        "iso": 200,
    }
    lines = table(tmp_path, '{"path": "a.jpg", "lat": 1, "x": 2}', "t.jsonl")
    assert lines.of(f"{tmp_path}/a.jpg") == {"x": 2}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_table(tmp_path: Path, delimiter: str, mark: bytes, end: str) -> None:
    rows = ["Path|year|title", 'a.jpg|2021|"one| two ""x"""', "", "sub/b.jpg|| ü ", f"{tmp_path}/c.jpg|1999|"]
    content = mark + end.join(rows).replace("|", delimiter).encode()
    read = table(tmp_path, content)
    assert read.of(f"{tmp_path}/a.jpg") == {"year": 2021, "title": f'one{delimiter} two "x"'}
    assert read.of(f"{tmp_path}/sub/b.jpg") == {"title": "ü"}
    assert read.of(f"{tmp_path}/c.jpg") == {"year": 1999}
    assert read.of(f"{tmp_path}/sub/a.jpg") is None
    assert read.of("a.jpg") is None
    assert len(read) == 3
    assert (read.problems, read.problem_count) == ([], 0)
    assert read.path == str(tmp_path / "table.csv")


def test_paths_are_relative_to_the_table(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "t.csv").write_text("file,x\n../a.jpg,1\n./b//c.jpg,2\n/m/../d.jpg,3\n~/e.jpg,4\n e.jpg,5\n")
    monkeypatch.chdir(tmp_path)
    read = read_table(Path("sub/t.csv"))
    assert read.unused([]) == sorted(
        [f"{tmp_path}/a.jpg", f"{tmp_path}/sub/b/c.jpg", "/d.jpg", f"{tmp_path}/sub/~/e.jpg", f"{tmp_path}/sub/ e.jpg"]
    )


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("x,path", "1,a.jpg", {"x": 1}),
        ("x,FileName", "1,a.jpg", {"x": 1}),
        ("name,path", "x,a.jpg", {"name": "x"}),
        ("name,file", "x,a.jpg", {"name": "x"}),
        ("x;Name", "1;a.jpg", {"x": 1}),
        ("path", "a.jpg", {}),
        (" path , x y ", "a.jpg, z ", {"x y": "z"}),
        ('"path","a,b"', 'a.jpg,"1"', {"a,b": 1}),
        ("path,,x", "a.jpg,7,8", {"x": 8}),  # a column without a name
        ("path,", "a.jpg,7", {}),
        ("path;a,b,c,d", "a.jpg;1", {"a,b,c,d": 1}),
        ('path,"a\nb"', "a.jpg,1", {"a\nb": 1}),
        ("path,x", 'a.jpg,"1\r\n2\r3"', {"x": "1\r\n2\r3"}),
    ],
)
def test_columns(tmp_path: Path, header: str, row: str, expected: Metadata) -> None:
    assert table(tmp_path, f"\n{header}\n{row}\n").of(f"{tmp_path}/a.jpg") == expected


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("0", 0),
        ("7", 7),
        ("-7", -7),
        ("2.5", 2.5),
        ("-0.25", -0.25),
        ("10.0", 10.0),
        ("9223372036854775807", 2**63 - 1),
        *(
            (text, text)
            for text in ("007", "-0", "+1", "1e5", "1E5", "2.50", ".5", "5.", "1,5", "1 000", "1_000", "0x1")
        ),
        *((text, text) for text in ("2024-05-01", "10:30", "inf", "nan", "NaN", "true", "٣", "1.2.3", "--1", "9" * 20)),
        ("9223372036854775808", "9223372036854775808"),
        ("0.1000000000000000055", "0.1000000000000000055"),
        ("100000000000000000000.0", "100000000000000000000.0"),
        ("9" * 5_000, "9" * 5_000),
        ("9" * 5_000 + ".5", "9" * 5_000 + ".5"),
    ],
)
def test_cells_become_numbers_only_if_nothing_is_lost(tmp_path: Path, cell: str, expected: Any) -> None:
    read = table(tmp_path, f"path\tx\na.jpg\t {cell}\n").of(f"{tmp_path}/a.jpg")
    assert read is not None
    assert (read["x"], type(read["x"])) == (expected, type(expected))


def test_problems_do_not_stop_the_reading(tmp_path: Path) -> None:
    content = (
        "path,x,y\n"  # 1
        "a.jpg,1,2\n"
        "b.jpg,1\n"  # 3
        "c.jpg,1,2,3\n"
        ",1,2\n"  # 5
        "a.jpg,3,4\n"
        "./a.jpg,5,6\n"  # 7
        '"d.jpg","two\nlines",2\n'  # 8, 9
        f"e.jpg,{'v' * 10_001},2\n"  # 10
        'f.jpg,"x"y,2\n'
        "g.jpg,1,2\n"  # 12
        f"h.jpg,{'v' * 200_000},2\n"
        f"i.jpg,{'v' * 1_100_000},2\n"  # 14
        "j.jpg,1,2\n"
        'k.jpg,"1,2\n'  # 16: the quote goes on to the end
        "l.jpg,1,2\n"
    )
    read = table(tmp_path, content)
    assert [(problem.line, problem.reason) for problem in read.problems] == [
        (3, "has 2 cells, the first row has 3"),
        (4, "has 4 cells, the first row has 3"),
        (5, "names no file"),
        (6, f"names a file for the second time, the first row counts: {tmp_path}/a.jpg"),
        (7, f"names a file for the second time, the first row counts: {tmp_path}/a.jpg"),
        (10, "of the metadata was left out: 'x' has 10,001 characters, at most 10,000 are read"),
        (11, "not CSV: ',' expected after '\"'; is a quote not closed?"),
        (13, "not CSV: field larger than field limit (131072); is a quote not closed?"),
        (14, "has more than 1,048,576 characters"),
        (16, "not CSV: unexpected end of data; is a quote not closed?"),
    ]
    assert read.problem_count == 10
    assert read.unused([]) == [f"{tmp_path}/{name}.jpg" for name in "adegj"]
    assert read.of(f"{tmp_path}/a.jpg") == {"x": 1, "y": 2}
    assert read.of(f"{tmp_path}/d.jpg") == {"x": "two\nlines", "y": 2}
    assert [problem.line for problem in read.problems if problem.is_taken] == [10]
    assert read.of(f"{tmp_path}/e.jpg") == {"y": 2}


def test_problems_are_counted_and_not_all_listed(tmp_path: Path) -> None:
    read = table(tmp_path, "path,x\n" + "a.jpg\n" * 1_500)
    assert (len(read.problems), read.problem_count) == (1_000, 1_500)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    read = table(tmp_path, b"path,x\n\xff\xfe.png,1\n\xe9.jpg,\xe9\nb.jpg,2\n")
    assert read.of(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png")) == {"x": 1}
    assert [(problem.line, problem.reason) for problem in read.problems] == [
        (3, "'x' is not UTF-8: save the table as UTF-8")
    ]
    assert read.of(f"{tmp_path}/b.jpg") == {"x": 2}


def test_unused(tmp_path: Path) -> None:
    read = table(tmp_path, "path,x\na.jpg,1\nc.jpg,2\nb.jpg,3\n")
    assert read.unused([f"{tmp_path}/a.jpg", "/elsewhere"]) == [f"{tmp_path}/b.jpg", f"{tmp_path}/c.jpg"]
    assert read.unused(iter([f"{tmp_path}/{name}.jpg" for name in "abc"])) == []


def test_lines(tmp_path: Path) -> None:
    content = (
        '\ufeff{"path": "a.jpg", "year": 2021, "exif": {"iso": 100}, "tags": ["x", 1], "none": null}\r\n'
        "\n"
        '{"path": "\\udcff.png", "x": 1}\n'  # 3: a byte that is no text, as Python writes it
        "{not JSON}\n"
        "[1]\n"  # 5
        '{"x": 1}\n'
        '{"path": 7}\n'  # 7
        '{"path": "a.jpg"}\n'
        '{"path": "b.jpg", "x": [[1]]}\n'  # 9
        '{"path": "c.jpg", "x": NaN}\n'
        '{"path": "d.jpg"}'  # 11
    )
    for name in ("t.jsonl", "t.NDJSON"):
        read = table(tmp_path, content, name)
        assert read.of(f"{tmp_path}/a.jpg") == {"year": 2021, "exif.iso": 100, "tags": ["x", "1"]}
        assert read.of(f"{tmp_path}/\udcff.png") == {"x": 1}
        assert read.of(f"{tmp_path}/d.jpg") == {}
        assert read.of(f"{tmp_path}/b.jpg") == {"x": ["1"]}
        assert read.of(f"{tmp_path}/c.jpg") == {}
        assert len(read) == 5
        assert [(problem.line, problem.reason) for problem in read.problems] == [
            (4, "not JSON: Expecting property name enclosed in double quotes (column 2)"),
            (5, 'not a JSON object: write {"key": value}'),
            (6, "names no file"),
            (7, "names no file"),
            (8, f"names a file for the second time, the first row counts: {tmp_path}/a.jpg"),
            (10, "of the metadata was left out: 'x' is nan, which is not a number that JSON has"),
        ]
    long = json.dumps({"path": "a.jpg", **{f"k{n}": "v" * 9_000 for n in range(8)}})
    longer = json.dumps({"path": "b.jpg", "x": "v" * 1_100_000})
    read = table(tmp_path, b'{"path": "\xff"}\n' + f'{long}\n{longer}\n{{"path": "c.jpg"}}\n'.encode(), "t.jsonl")
    assert [problem.reason for problem in read.problems] == [
        "not UTF-8",
        "metadata of 72,065 bytes, at most 65,536 are read",
        "has more than 1,048,576 characters",
    ]
    assert [problem.line for problem in read.problems] == [1, 2, 3]
    assert read.unused([]) == [f"{tmp_path}/c.jpg"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"t\.csv needs a column path or file or filename or name in its first row, which has nothing"),
        (b"\n\n", "which has nothing"),
        (b"a;b\n1;2\n", r"needs a column path .* which has 'a', 'b'"),
        (b'{"a": 1}', r"needs a column path .* which has '\{\"a\": 1\}'"),
        (b"path,x,x,y,y\n", r"t\.csv has several columns 'x', 'y'"),
        (b'path,"x"y\n', r"the first row of .*t\.csv is not CSV: ',' expected"),
        (b'path,"x\n', "is not CSV: unexpected end of data"),
        (b"path,gr\xf6sse\n", r"t\.csv is not UTF-8: save the table as CSV in UTF-8"),
        ("path,x\n".encode("utf-16"), r"t\.csv is UTF-16: save the table as CSV in UTF-8"),
        (b"x" * 2_000_000, "which has nothing"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(MetadataError, match=message):
        table(tmp_path, content, "t.csv")


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(MetadataError, match=r"none\.csv cannot be read: No such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(MetadataError, match="is not a file: a table is CSV, or JSON lines"):
        read_table(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(MetadataError, match="is not a file"):
        read_table(tmp_path / "pipe.csv")
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(1024**3 + 1)  # a hole, no disk is used
    with pytest.raises(MetadataError, match=r"has 1,073,741,825 bytes, tables of at most 1,073,741,824 are read"):
        read_table(tmp_path / "large.csv")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6), max_size=4),
    st.sampled_from(",;\t"),
)
def test_every_csv_that_python_writes_is_read(tmp_path_factory, cells: list[str], delimiter: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    written = io.StringIO()
    columns = [f"c{at}" for at in range(len(cells))]
    csv.writer(written, delimiter=delimiter).writerows([["path", *columns], ["a.jpg", *cells], ["b", *columns]])
    read = table(folder, written.getvalue(), "written.csv")
    expected = {column: cell.strip() for column, cell in zip(columns, cells, strict=True) if cell.strip()}
    a, b = read.of(f"{folder}/a.jpg"), read.of(f"{folder}/b")
    assert a is not None
    assert {key: json.dumps(value) if not isinstance(value, str) else value for key, value in a.items()} == expected
    assert b == dict(zip(columns, columns, strict=True))


def test_several_tables(tmp_path: Path) -> None:
    """Of a key that several have, the last counts; a row that cannot be read says nothing."""
    first = table(tmp_path, "path,x,y\na.jpg,1,2\nb.jpg,1,2\nc.jpg,1,2\n", "1.csv")
    second = table(tmp_path, "path,y,z\na.jpg,3,4\nb.jpg,3\nd.jpg,3,4\n", "2.csv")
    said = {name: said_of(f"{tmp_path}/{name}.jpg", [first, second]) for name in "abcde"}
    assert {name: row and decode(row) for name, row in said.items()} == {
        "a": {"x": 1, "y": 3, "z": 4},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1, "y": 2},
        "d": {"y": 3, "z": 4},
        "e": None,
    }
    assert said_of(f"{tmp_path}/a.jpg", [second, first]) == '{"x":1,"y":2,"z":4}'
    assert said_of(f"{tmp_path}/a.jpg", []) is None
