"""Tables of pairs: which columns play which role, which rows are refused and why, and which tables are of no use."""

import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.pipeline.tables import reading as table_file
from trivium.pipeline.tables.pairs import PairTable, TableError, read_pairs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files that tables name; nothing looks into them here."""
    (tmp_path / "sub").mkdir()
    for name in ("a.jpg", "b.PNG", "sub/c.webp", "x.ogg", "y.wav", "note.txt", "film.mp4"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def table(folder: Path, content: str | bytes, name: str = "t.csv", **options) -> PairTable:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_pairs(file, **options)


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        *((sign + "cmd()", f"'{sign}cmd()") for sign in "=+-@＝"),
        ("\t=1", r"'\t=1"),
        *((number, number) for number in ("-1", "+3.5", "-1e-5", ".5", "")),
        ("a\x1b[31mb\u202ec\ud800", r"a\x1b[31mb\u202ec\ud800"),
        ("ü\xa0x 👩\u200d🚀", "ü\xa0x 👩\u200d🚀"),
        (3, 3),
        (None, None),
    ],
)
def test_a_spreadsheet_runs_no_cell(cell: object, written: object) -> None:
    assert table_file.spreadsheet_cell(cell) == written


def told(read: PairTable) -> list[dict[str, Any]]:
    """The rows, without what is None, and files by their names."""
    rows: list[dict[str, Any]] = []
    for row in read.rows:
        values = {name: getattr(row, name) for name in ("text", "image", "audio", "label", "score")}
        for name in ("image", "audio"):
            if values[name] is not None:
                assert os.path.isabs(values[name])
                values[name] = os.path.relpath(values[name], read.path.parent)
        rows.append({name: value for name, value in values.items() if value is not None})
    return rows


def reasons(read: PairTable) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in read.refused]


# Columns.


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_role(folder: Path, delimiter: str, mark: bytes, packed: bool) -> None:
    rows = [
        "Image|text|audio|label|score|more",
        "a.jpg|a dog|x.ogg|animal|0.5|7",
        '||y.wav| b |-1|"|"',
        "sub/c.webp|ü| |||",
    ]
    content = mark + "\r\n".join(rows).replace("|", delimiter).encode()
    name = "t.csv.gz" if packed else "t.csv"
    read = table(folder, gzip.compress(content) if packed else content, name)
    assert told(read) == [
        {"image": "a.jpg", "text": "a dog", "audio": "x.ogg", "label": "animal", "score": 0.5},
        {"audio": "y.wav", "label": "b", "score": -1.0},
        {"image": "sub/c.webp", "text": "ü"},
    ]
    assert [row.line for row in read.rows] == [2, 3, 4]
    assert read.columns == {"text": "text", "image": "Image", "audio": "audio", "label": "label", "score": "score"}
    assert read.modalities == ("text", "image", "audio")
    assert read.refused == []


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("image,caption", "a.jpg,dog", {"image": "a.jpg", "text": "dog"}),
        ("image,Title", "a.jpg,dog", {"image": "a.jpg", "text": "dog"}),
        ("image,title,caption", "a.jpg,t,c", {"image": "a.jpg", "text": "c"}),
        ("image,title,text", "a.jpg,t,x", {"image": "a.jpg", "text": "x"}),
        ("path,title", "b.PNG,dog", {"image": "b.PNG", "text": "dog"}),
        ("file,title", "x.ogg,dog", {"audio": "x.ogg", "text": "dog"}),
        ("FileName;x", "x.ogg;1", {"audio": "x.ogg"}),
        ("filename,path", "x.ogg,a.jpg", {"image": "a.jpg"}),
        ("path,image", "x.ogg,a.jpg", {"image": "a.jpg"}),  # the path is something else then
        ("path,audio", "a.jpg,x.ogg", {"audio": "x.ogg"}),
        ("text,,x", "dog,7,8", {"text": "dog"}),  # a column without a name
    ],
)
def test_synonyms(folder: Path, header: str, row: str, expected: dict[str, str]) -> None:
    assert told(table(folder, f"{header}\n{row}\n")) == [expected]


def test_a_path_is_a_picture_or_a_sound_by_its_suffix(folder: Path) -> None:
    read = table(folder, "path,caption\na.jpg,1\nx.ogg,2\n,3\nnote.txt,4\nfilm.mp4,5\nplain,6\n")
    assert told(read) == [{"image": "a.jpg", "text": "1"}, {"audio": "x.ogg", "text": "2"}, {"text": "3"}]
    assert read.columns == {"text": "caption", "image": "path", "audio": "path"}
    assert reasons(read) == [
        (5, "'path' names no picture and no sound, by its suffix: note.txt"),
        (6, "'path' names no picture and no sound, by its suffix: film.mp4"),
        (7, "'path' names no picture and no sound, by its suffix: plain"),
    ]


def test_columns_that_the_caller_names(folder: Path) -> None:
    content = "path,what,text,label,usage\nnote.txt,dog,other,1,Casual\n"
    read = table(folder, content, columns={"image": "PATH", "text": "what", "label": "usage"})
    assert told(read) == [{"image": "note.txt", "text": "dog", "label": "Casual"}]
    assert read.columns == {"text": "what", "image": "path", "label": "usage"}
    assert told(table(folder, content, columns={"image": "path", "text": "", "label": ""})) == [{"image": "note.txt"}]
    both = table(folder, "A,a\none,two\n", columns={"text": "a"})
    assert told(both) == [{"text": "two"}]


def test_the_named_column_decides_the_sign_between_columns(folder: Path) -> None:
    assert told(table(folder, "what,ever;words\n1,2;dog\n", columns={"text": "words"})) == [{"text": "dog"}]


def test_where(folder: Path) -> None:
    content = "text,split,fold,gone\na,dev,1,\nb, dev ,2,x\nc,train,1,\nd,dev,10,\n"
    assert told(table(folder, content, where={"split": "dev"})) == [{"text": "a"}, {"text": "b"}, {"text": "d"}]
    assert told(table(folder, content, where={"split": "dev", "fold": "1"})) == [{"text": "a"}]
    assert told(table(folder, content, where={"SPLIT": "train"})) == [{"text": "c"}]
    assert told(table(folder, content, where={"gone": ""})) == [{"text": "a"}, {"text": "c"}, {"text": "d"}]


def test_rows_that_are_passed_over_are_not_looked_at(folder: Path) -> None:
    read = table(folder, "image,split\ngone.jpg,train\na.jpg,dev\n", where={"split": "dev"})
    assert (told(read), read.refused) == ([{"image": "a.jpg"}], [])


# Rows.


def test_bad_rows_cost_themselves_alone(folder: Path) -> None:
    content = (
        b"image,text,score\n"  # 1
        b"a.jpg,one,1\n"
        b"gone.jpg,two,1\n"  # 3
        b"sub,three,1\n"
        b",,1\n"  # 5
        b"a.jpg,four\n"
        b"a.jpg,five,high\n"  # 7
        b"a.jpg,six,nan\n"
        b'a.jpg,"se\nven",1e-1\n'  # 9, 10
        b'a.jpg,"eight"x,1\n'
        b"a.jpg,\xff,1\n"  # 12
        b"a.jpg,nine\x00,1\n"
        b"\n"
        b'a.jpg,"ten,1\n'  # 15: the quote goes on to the end
    )
    read = table(folder, content)
    assert [row["text"] for row in told(read)] == ["one", "se\nven", "nine\x00"]
    assert reasons(read) == [
        (3, f"{folder}/gone.jpg does not exist"),
        (4, f"{folder}/sub is not a file"),
        (5, "has no text, no picture and no sound"),
        (6, "has 2 cells, the first row has 3"),
        (7, "'score' is 'high', which is no number"),
        (8, "'score' is 'nan', which is no number"),
        (11, "not CSV: ',' expected after '\"'; is a quote not closed?"),
        (12, "'text' is not UTF-8: save the table as UTF-8"),
        (15, "not CSV: unexpected end of data; is a quote not closed?"),
    ]


def test_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the table's folder, absolute, with "..", with links, with bytes that are no UTF-8."""
    (folder / "link").symlink_to(folder / "sub")
    odd = os.fsencode(folder) + b"/\xff.jpg"
    Path(os.fsdecode(odd)).write_bytes(b"x")
    content = f"image\n../a.jpg\n{folder}/b.PNG\n./c.webp\nc.webp\n".encode() + b"../\xff.jpg\n../a.jpg\x00\n"
    (folder / "sub" / "t.csv").write_bytes(content)
    monkeypatch.chdir(folder)
    for name in ("sub/t.csv", "link/t.csv"):
        read = read_pairs(name)
        found = [row.image for row in read.rows]
        c = f"{folder}/sub/c.webp"
        assert found == [f"{folder}/a.jpg", f"{folder}/b.PNG", c, c, os.fsdecode(odd)]
        assert reasons(read) == [(7, f"{folder}/a.jpg\x00 does not exist")]


# Other kinds of files.


def test_json_lines(folder: Path) -> None:
    lines = [
        {"image": "a.jpg", "text": "dog", "label": 3, "score": 0.25},
        {"text": "cat", "image": None, "label": True},
        {"caption": "by a synonym", "more": {"deep": 1}},
        {"text": ["x"]},
        {"text": {"x": 1}},
        {"score": 1},
        {"text": "cat", "score": "much"},
        {"text": "last", "split": "dev"},
    ]
    content = "\n".join(json.dumps(line) for line in lines) + "\n\n[1]\nnot JSON\n"
    for name in ("t.jsonl", "t.NDJSON", "t.jsonl.gz"):
        read = table(folder, gzip.compress(content.encode()) if name.endswith("gz") else content, name)
        assert told(read) == [
            {"image": "a.jpg", "text": "dog", "label": "3", "score": 0.25},
            {"text": "cat", "label": "true"},
            {"text": "by a synonym"},
            {"text": "last"},
        ]
        assert reasons(read) == [
            (4, "'text' is a list, not a text or a number"),
            (5, "'text' is a dict, not a text or a number"),
            (6, "has no text, no picture and no sound"),
            (7, "'score' is 'much', which is no number"),
            (10, 'not a JSON object: write {"key": value}'),
            (11, "not JSON: Expecting value (column 1)"),
        ]
    assert told(read_pairs(folder / "t.jsonl", where={"split": "dev"})) == [{"text": "last"}]
    assert told(read_pairs(folder / "t.jsonl", where={"label": "true"})) == [{"text": "cat", "label": "true"}]


def test_parquet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivium.pipeline.tables.pairs.PARQUET_ROWS", 2)
    columns = pa.table(
        {
            "path": ["a.jpg", "gone.jpg", "x.ogg", None],
            "caption": pa.array(["dog", "cat", None, ""]).dictionary_encode(),
            "label": pa.array([1, 2, None, 3], pa.int32()),
            "score": pa.array([0.5, 1, None, 2], pa.float32()),
            "vector": [[1.0], [2.0], [3.0], [4.0]],
            "split": ["dev", "dev", "test", "dev"],
        }
    )
    pq.write_table(columns, folder / "t.parquet")
    read = read_pairs(folder / "t.parquet")
    assert told(read) == [{"image": "a.jpg", "text": "dog", "label": "1", "score": 0.5}, {"audio": "x.ogg"}]
    assert [row.line for row in read.rows] == [1, 3]
    assert reasons(read) == [(2, f"{folder}/gone.jpg does not exist"), (4, "has no text, no picture and no sound")]
    assert told(read_pairs(folder / "t.parquet", where={"split": "test"})) == [{"audio": "x.ogg"}]
    with pytest.raises(TableError, match=r"4 refused, the first in line 1: 'vector' is a list"):
        read_pairs(folder / "t.parquet", columns={"text": "vector", "image": ""})


def test_parquet_without_pyarrow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"text": ["a"]}), folder / "t.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(TableError, match=r"need pyarrow .*run pip install 'trivium\[parquet\]', or use CSV"):
        read_pairs(folder / "t.parquet")


# Tables of no use.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"t\.csv has no row that can be used: a row needs text, image or audio; its columns: none"),
        (b"a,b\n1,2\n", r"its columns: 'a', 'b'; 1 refused, the first in line 2: has no text, no picture and no sound"),
        (b"text\n", r"has no row that can be used: .* its columns: 'text'$"),
        (b"image\ngone.jpg\n", r"1 refused, the first in line 2: .*/gone\.jpg does not exist"),
        (b"text,x,x\na,b,c\n", r"t\.csv has several columns 'x'"),
        (b'text,"x"y\n', r"the first row of .*t\.csv is not CSV: ',' expected"),
        (b"text," + b"x" * 200_000 + b"\n", r"the first row of .*t\.csv is not CSV: field larger than field limit"),
        (b"text,gr\xf6sse\n", r"t\.csv is not UTF-8"),
        ("text\na\n".encode("utf-16"), r"t\.csv is UTF-16"),
    ],
)
def test_of_no_use(folder: Path, content: bytes, message: str) -> None:
    with pytest.raises(TableError, match=message):
        table(folder, content)


def test_columns_that_are_not_there(folder: Path) -> None:
    with pytest.raises(TableError, match=r"has no column 'words' \(--column\); its columns: 'text', 'split'"):
        table(folder, "text,split\na,b\n", columns={"text": "words"})
    with pytest.raises(TableError, match=r"has no column 'fold' \(--where\); its columns: 'text', 'split'"):
        table(folder, "text,split\na,b\n", where={"fold": "1"})
    with pytest.raises(TableError, match=r"has no column 'fold' \(--where\); its columns: 'text'"):
        table(folder, '{"text": "a"}\n', "t.jsonl", where={"fold": "1"})
    with pytest.raises(TableError, match=r"its columns: 'text', 'split'; none has split=x"):
        table(folder, "text,split\na,b\n", where={"split": "x"})
    with pytest.raises(TableError, match=r"no role 'video': columns may be given for text, image, audio, label, score"):
        table(folder, "text\na\n", columns={"video": "text"})


def test_files_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(TableError, match=rf"{name} cannot be read: No such file"):
            read_pairs(folder / name)
    for name in ("sub", "sub.parquet"):
        (folder / name).mkdir(exist_ok=True)
        with pytest.raises(TableError, match="is not a file: a table is CSV, or JSON lines"):
            read_pairs(folder / name)
    with pytest.raises(TableError, match=r"t\.parquet cannot be read as Parquet"):
        table(folder, b"PAR1 and nothing else", "t.parquet")
    with pytest.raises(TableError, match=r"t\.csv\.gz cannot be unpacked: Not a gzipped file"):
        table(folder, b"text\na\n", "t.csv.gz")
    packed = gzip.compress(b"text\n" + os.urandom(9_000).hex().encode() + b"\n")
    for damaged in (packed[:2_000], packed[:2_000] + b"\xff" * 500 + packed[2_500:]):
        with pytest.raises(TableError, match=r"t\.csv\.gz cannot be unpacked"):
            table(folder, damaged, "t.csv.gz")
    monkeypatch.setattr(table_file, "MAX_TABLE_BYTES", 100_000)
    with pytest.raises(TableError, match=r"has 100,001 bytes, tables of at most 100,000 are read"):
        table(folder, b"x" * 100_001)


def test_what_unpacks_to_too_much(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("reading", "pairs"):
        monkeypatch.setattr(f"trivium.pipeline.tables.{module}.MAX_TABLE_BYTES", 100_000)
    with pytest.raises(TableError, match=r"t\.csv\.gz unpacks to more than the 100,000 bytes that are read"):
        table(folder, gzip.compress(b"text\n" + b"aaaaaaaaa\n" * 20_000), "t.csv.gz")
    pq.write_table(pa.table({"text": ["a" * 1_000] * 500}), folder / "t.parquet")
    assert (folder / "t.parquet").stat().st_size < 100_000
    with pytest.raises(TableError, match=r"t\.parquet unpacks to more than the 100,000 bytes that are read"):
        read_pairs(folder / "t.parquet")


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@settings(max_examples=60)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_every_csv_that_python_writes_is_read(tmp_path_factory, cells: list[tuple[str, str]], delimiter: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter).writerows([["text", "label"], ["first", "x"], *cells])
    read = table(folder, written.getvalue(), "written.csv")
    expected = [(text.strip() or None, label.strip() or None) for text, label in [("first", "x"), *cells]]
    assert [(row.text, row.label) for row in read.rows] == [pair for pair in expected if pair[0] is not None]
