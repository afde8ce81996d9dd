"""Metadata: what is read from files beside items and from tables, what is left out, what is refused and why."""

import csv
import gzip
import io
import json
import math
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.pipeline.tables import reading as table_file
from trivium.pipeline.tables.metadata import (
    Metadata,
    MetadataError,
    MetadataTable,
    decode,
    encode,
    flatten,
    read_sidecar,
    read_table,
)


def sidecar(entries: Any, **options: Any) -> Metadata:
    return read_sidecar(json.dumps(entries).encode(), **options)


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


# Beside an item.


def test_kinds_of_values() -> None:
    assert sidecar({"a": "x", "b": 1, "c": 2.5, "d": True, "e": None, "f": ["x", "y"], "g": "", "h": []}) == {
        "a": "x",
        "b": 1,
        "c": 2.5,
        "d": True,
        "f": ["x", "y"],
        "g": "",
        "h": [],
    }
    assert sidecar({}) == {}


def test_lists_become_lists_of_texts() -> None:
    assert sidecar({"a": ["x", 1, 2.5, True, None, ""]}) == {"a": ["x", "1", "2.5", "true", ""]}


def test_objects_are_flattened() -> None:
    assert sidecar({"exif": {"model": "X", "lens": {"f": 2.8}, "none": None}, "empty": {}}) == {
        "exif.model": "X",
        "exif.lens.f": 2.8,
    }


def test_of_equal_keys_the_last_counts() -> None:
    assert read_sidecar(b'{"a": 1, "a": 2, "b.c": 1, "b": {"c": 2}}') == {"a": 2, "b.c": 2}


def test_text_is_what_sqlite_can_hold() -> None:
    read = read_sidecar(rb'{"a\u0000": "x\u0000y\u0000", "b": "\ud800", "c": "\ud83d\ude00", "\udfff": ["\udc80"]}')
    assert read == {"a": "xy", "b": "\ufffd", "c": "\U0001f600", "\ufffd": ["\ufffd"]}
    with sqlite3.connect(":memory:") as db:
        assert decode(db.execute("SELECT ?", (encode(read),)).fetchone()[0]) == read
    db.close()


def test_byte_order_mark() -> None:
    assert read_sidecar(b'\xef\xbb\xbf {"a": 1}\r\n') == {"a": 1}


def test_numbers_beyond_64_bits_remain_text() -> None:
    big = 2**63
    assert sidecar({"a": big - 1, "b": -big, "c": big, "d": -big - 1, "e": 10**300}) == {
        "a": big - 1,
        "b": -big,
        "c": str(big),
        "d": str(-big - 1),
        "e": str(10**300),
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"not JSON: Expecting value \(column 1\)"),
        (b'{"a": 1', r"not JSON: Expecting ',' delimiter \(column 8\)"),
        (b'{\n"a": }', r"not JSON: Expecting value \(line 2, column 6\)"),
        (b"{'a': 1}", "not JSON: Expecting property name"),
        (b"[1]", r'not a JSON object: write \{"key": value\}'),
        (b'"text"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a": "\xe9"}', r"not UTF-8 \(byte 7\): save the metadata as UTF-8"),
        (b'\xff\xfe{"a": 1}', r"not UTF-8 \(byte 0\)"),
        (b'{"a": NaN}', "NaN is not a number that JSON has"),
        (b'{"a": [Infinity]}', "Infinity is not a number that JSON has"),
        (b'{"a": -Infinity}', "-Infinity is not a number"),
        (b'{"a": 1e400}', "the number 1e400 is too large"),
        (b'{"a": [[1]]}', "'a' is a list of lists or objects: only texts, numbers, true and false may be listed"),
        (b'{"a": {"b": [{"c": 1}]}}', "'a.b' is a list of lists or objects"),
        (b'{"": 1}', "^a key is empty$"),
        (b'{"a": {"\\u0000": 1}}', "^a key is empty, within 'a.'$"),
        (b"[" * 60_000, "nested too deeply|not JSON"),
        (b'{"a":' * 13_000, "nested too deeply|not JSON"),
        (b'{"a":' * 150 + b"1" + b"}" * 150, r"the key 'a\.a\..*…' has 201 characters, at most 200"),
    ],
)
def test_what_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(MetadataError, match=message):
        read_sidecar(data)


def test_limits() -> None:
    assert len(sidecar({f"k{n}": n for n in range(200)})) == 200
    with pytest.raises(MetadataError, match="201 keys, at most 200 are read"):
        sidecar({f"k{n}": n for n in range(201)})
    assert sidecar({"k" * 200: "v" * 10_000, "l": ["é" * 5_000, "w" * 5_000]})["k" * 200] == "v" * 10_000
    with pytest.raises(MetadataError, match=r"the key 'k+…' has 201 characters, at most 200"):
        sidecar({"k" * 201: 1})
    with pytest.raises(MetadataError, match="'k' has 10,001 characters, at most 10,000"):
        sidecar({"k": "v" * 10_001})
    with pytest.raises(MetadataError, match="'k' has 10,001 characters, at most 10,000"):
        sidecar({"k": ["v" * 5_000, "w" * 5_001]})
    assert read_sidecar(b'{"a": 1}'.ljust(64 * 1024)) == {"a": 1}
    with pytest.raises(MetadataError, match=r"metadata of 65,537 bytes, at most 65,536 are read"):
        read_sidecar(b'{"a": 1}'.ljust(64 * 1024 + 1))


def test_python_values_that_json_has_not() -> None:
    assert flatten({"a": ("x", 1), "b": {"c": 2**70}}) == {"a": ["x", "1"], "b.c": str(2**70)}
    with pytest.raises(MetadataError, match="'a' is nan, which is not a number that JSON has"):
        flatten({"a": math.nan})
    with pytest.raises(MetadataError, match="'a' is inf, which is not"):
        flatten({"a": [math.inf]})
    with pytest.raises(MetadataError, match="'a' is a bytes, not a text, a number"):
        flatten({"a": b"x"})
    with pytest.raises(MetadataError, match="the key 1 is not a text"):
        flatten({1: "x"})  # type: ignore[dict-item]
    with pytest.raises(MetadataError, match="'a' is a number of more than 1,000 bits"):
        flatten({"a": 10**5000})


# Positions.

PRIVATE: dict[str, Any] = {
    "gps": "48.1 11.6",
    "GPSLatitude": 48.1,
    "gps_position": "x",
    "exif.GPSLongitudeRef": "E",
    "EXIF:GPSAltitude": 520,
    "Composite:GPSPosition": "48 deg 8' N",
    "exif GPS date": "x",
    "latitude": 48.1,
    "Longitude": 11.6,
    "geoData.latitude": 48.1,
    "photoLatitude": 48.1,
    "lat": 48.1,
    "LON": 11.6,
    "lng": 11.6,
    "place.lat": 48.1,
    "photo_lat": 48.1,
    "lat-deg": 48,
    "latlng": "48.1,11.6",
    "coordinates": "x",
    "location.city": "x",
    "Location.x": 1,
    "exif.location.name": "x",
    "location": "48.1374, 11.5755",
    "com.apple.location": "+48.8566+002.3522/",
    "my location": "48°8'N 11°34'E",
}
PUBLIC: dict[str, Any] = {
    "place": "München",
    "location": "München",
    "location ": "221b Baker Street",
    "venue_location": "12 Main Street",
    "locations": "48.1 11.6",
    "platform": "x",
    "flat": 1,
    "latency": 1,
    "lonely": 1,
    "translation": "x",
    "relocation.year": 1,
    "altitude": 520,
    "long": "x",
    "location_count": 3,
    "album.location": 7,
    "my.location": "1 2 " * 2_499 + ".",
}


@pytest.mark.parametrize(("key", "value"), PRIVATE.items())
def test_positions_are_stored_only_if_asked_for(key: str, value: Any) -> None:
    assert sidecar({key: value, "other": 1}) == {"other": 1}
    assert sidecar({key: value}, positions=True) == {key: value}


@pytest.mark.parametrize(("key", "value"), PUBLIC.items())
def test_what_is_no_position_is_stored(key: str, value: Any) -> None:
    assert sidecar({key: value}) == {key: value}


def test_positions_in_parts_and_lists() -> None:
    nested = {"location": {"type": "Point", "coordinates": [11.6, 48.1]}, "exif": {"gps": {"lat": 1}, "iso": 100}}
    assert sidecar(nested) == {"exif.iso": 100}
    assert sidecar({"location": [48.1374, 11.5755]}) == {}
    assert sidecar({"location": ["Paris", "Rome"]}) == {"location": ["Paris", "Rome"]}
    assert sidecar({"gps": [[1, 2], [3, 4]]}) == {}  # what is left out need not be of the right form
    assert sidecar(nested, positions=True)["location.coordinates"] == ["11.6", "48.1"]


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


# Tables.


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
        (10, "'x' has 10,001 characters, at most 10,000 are read"),
        (11, "not CSV: ',' expected after '\"'; is a quote not closed?"),
        (13, "not CSV: field larger than field limit (131072); is a quote not closed?"),
        (14, "has more than 1,048,576 characters"),
        (16, "not CSV: unexpected end of data; is a quote not closed?"),
    ]
    assert read.problem_count == 10
    assert read.unused([]) == [f"{tmp_path}/{name}.jpg" for name in "adgj"]
    assert read.of(f"{tmp_path}/a.jpg") == {"x": 1, "y": 2}
    assert read.of(f"{tmp_path}/d.jpg") == {"x": "two\nlines", "y": 2}


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
        assert len(read) == 3
        assert [(problem.line, problem.reason) for problem in read.problems] == [
            (4, "not JSON: Expecting property name enclosed in double quotes (column 2)"),
            (5, 'not a JSON object: write {"key": value}'),
            (6, "names no file"),
            (7, "names no file"),
            (8, f"names a file for the second time, the first row counts: {tmp_path}/a.jpg"),
            (9, "'x' is a list of lists or objects: only texts, numbers, true and false may be listed"),
            (10, "NaN is not a number that JSON has"),
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


# Stored.

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
values = st.one_of(
    texts,
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.lists(texts, max_size=4),
)


@settings(max_examples=100)
@given(st.dictionaries(texts.filter(bool), values, max_size=6))
def test_what_is_stored_is_read_again(metadata: Metadata) -> None:
    stored = encode(metadata)
    assert decode(stored) == metadata
    assert [type(value) for value in decode(stored).values()] == [type(metadata[key]) for key in decode(stored)]
    assert encode(dict(reversed(metadata.items()))) == stored
    with sqlite3.connect(":memory:") as db:
        rows = db.execute("SELECT key, atom FROM json_each(?) WHERE type NOT IN ('array', 'true', 'false')", (stored,))
        for key, atom in rows:
            value = metadata[key]
            assert atom == (pytest.approx(value, rel=1e-15) if isinstance(value, float) else value)
    db.close()


def test_stored_form() -> None:
    assert encode({"b": 1, "a": ["ü", "x"], "c": True, "d": 2.5}) == '{"a":["ü","x"],"b":1,"c":true,"d":2.5}'
    assert encode({}) == "{}"
    assert decode('{"gps": "1 2"}') == {"gps": "1 2"}
    with pytest.raises(MetadataError, match="metadata cannot be stored: Out of range float values"):
        encode({"a": math.nan})
    with pytest.raises(MetadataError, match="not JSON"):
        decode("{")
