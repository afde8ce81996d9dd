"""`trivium remove`, empty values of any command, and answers for other programs, whatever the names are."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trivium.pipeline import collection as collection_module
from trivium.pipeline.cli.main import main


@pytest.fixture(autouse=True)
def stub(space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_module, "load_space", lambda *_, **__: space)


@pytest.fixture
def named(tmp_path: Path, picture: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> str:
    """A collection of names that no encoding but UTF-8 has, or none at all."""
    for name in ("日本☃.png", "two\nlines.png", "IMG_1.PNG", "broken\udcff.png"):
        picture(tmp_path / "m" / name, size=(32, 24 + len(name)))
    (tmp_path / "m" / "IMG_1.txt").write_text('=HYPERLINK("http://x")')
    folder = str(tmp_path / "c")
    assert main(["index", folder, str(tmp_path / "m"), "--device", "cpu"]) == 0
    capsys.readouterr()
    return folder


def printed(monkeypatch: pytest.MonkeyPatch, *arguments: str, encoding: str = "utf-8") -> tuple[int, bytes, bytes]:
    """Run a command line whose streams have an encoding, and take no other characters."""
    streams = [io.BytesIO(), io.BytesIO()]
    with monkeypatch.context() as patched:
        for name, stream in zip(("stdout", "stderr"), streams, strict=True):
            patched.setattr(sys, name, io.TextIOWrapper(stream, encoding=encoding, errors="strict", newline="\n"))
        status = main([*arguments])
        assert (sys.stdout.errors, sys.stderr.errors) == ("strict", "strict")
        sys.stdout.flush()
        sys.stderr.flush()
        return status, streams[0].getvalue(), streams[1].getvalue()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
@pytest.mark.parametrize("form", ["", "--json", "--csv", "--paths", "--paths0"])
def test_search_prints_any_name_in_any_encoding(named: str, monkeypatch, encoding: str, form: str) -> None:
    status, out, _ = printed(monkeypatch, "search", named, "x", *filter(None, [form]), encoding=encoding)
    assert status == 0
    assert len(out) > 100
    if not form:
        assert b"\\u65e5\\u672c\\u2603.png" in out
        assert b"two\\nlines.png" in out


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_what_else_is_printed(named: str, tmp_path: Path, monkeypatch, encoding: str) -> None:
    (tmp_path / "m" / "☃.jpg").write_text("no picture")
    status, out, err = printed(monkeypatch, "index", named, str(tmp_path / "m"), "--device", "cpu", encoding=encoding)
    assert status == 0
    assert b"\\u2603.jpg: not a picture" in out
    assert b"image" in err  # the progress bar
    status, _, err = printed(monkeypatch, "remove", named, str(tmp_path / "☃ gone"), encoding=encoding)
    assert status == 1
    assert b"\\u2603 gone" in err
    assert printed(monkeypatch, "info", str(tmp_path / "☃"), encoding=encoding)[0] == 1
    with pytest.raises(SystemExit):
        printed(monkeypatch, "search", named, "x", "--only", "☃", encoding=encoding)


def test_paths_are_the_bytes_of_names(named: str, tmp_path: Path, monkeypatch) -> None:
    wanted = sorted(os.path.join(os.fsencode(tmp_path), b"m", name) for name in os.listdir(os.fsencode(tmp_path / "m")))
    wanted = [path for path in wanted if not path.endswith(b".txt")]
    status, out, _ = printed(monkeypatch, "search", named, "x", "--paths0", encoding="cp1252")
    assert status == 0
    assert out.endswith(b"\0")
    assert sorted(out[:-1].split(b"\0")) == wanted
    out = printed(monkeypatch, "search", named, "x", "--paths", "--path", "IMG*")[1]
    assert out == os.fsencode(tmp_path / "m" / "IMG_1.PNG") + b"\n"
    assert printed(monkeypatch, "search", named, "x", "--paths", "--path", "none*")[1] == b""


def test_hits_as_csv(named: str, tmp_path: Path, monkeypatch) -> None:
    out = printed(monkeypatch, "search", named, "x", "--csv")[1]
    hits = json.loads(printed(monkeypatch, "search", named, "x", "--json")[1])["hits"]
    rows = list(csv.DictReader(io.StringIO(out.decode(), newline="")))
    columns = [
        "path",
        "path_bytes",
        "modality",
        "score",
        "relevance",
        "caption",
        "matched",
        "start",
        "stop",
        "metadata",
    ]
    assert list(rows[0]) == columns
    found = [os.fsdecode(bytes.fromhex(row["path_bytes"])) if row["path_bytes"] else row["path"] for row in rows]
    assert found == [hit["path"] for hit in hits]
    assert [float(row["score"]) for row in rows] == [hit["score"] for hit in hits]
    assert {row["caption"] for row in rows} == {"", '\'=HYPERLINK("http://x")'}  # no spreadsheet runs it


def test_export_as_csv(named: str, tmp_path: Path, run) -> None:
    status, out, _ = run("export", named, str(tmp_path / "t.csv"))
    assert status == 0
    assert "5 rows written" in out
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "path", "path_bytes", "modality", "role", "caption", "metadata", "sha256"]
    assert sorted(row["role"] for row in rows) == ["caption", *["content"] * 4]
    status, _, err = run("import", str(tmp_path / "d"), str(tmp_path / "t.csv"))
    assert status == 1
    assert "the name must end in .parquet or .npy" in err
    assert run("export", named, str(tmp_path / "t.csv"))[0] == 1  # it exists
    assert run("export", named, str(tmp_path / "t.csv"), "--path", "img*", "--overwrite")[0] == 0
    assert (tmp_path / "t.csv").read_text().count("\n") == 3


def test_one_form_at_a_time(named: str, run) -> None:
    status, _, err = run("search", named, "x", "--csv", "--json")
    assert status == 2
    assert "--json and --csv are forms of one answer" in err
    status, _, err = run("search", named, "x", "--paths", "--explain")
    assert status == 2
    assert "no place for what --explain tells" in err


@pytest.mark.parametrize(
    "words",
    [
        ["remove", "C", ""],
        ["remove", "C", "x", ""],
        ["remove", "", "x"],
        ["index", "C", ""],
        ["index", "", "x"],
        ["index", "C", "x", "--metadata", ""],
        ["index", "C", "x", "--metadata="],
        ["index", "C", "x", "--space", ""],
        ["search", "", "x"],
        ["search", "C", "x", "--path", ""],
        ["search", "C", "x", "--html="],
        ["search", "C", "--image", ""],
        ["search", "C", ""],
        ["export", "C", ""],
        ["import", "C", ""],
        ["backup", "C", ""],
        ["restore", "", "C"],
        ["info", ""],
        ["verify", ""],
    ],
    ids=" ".join,
)
def test_empty_values_are_refused(named: str, run, words: list[str]) -> None:
    status, _, err = run(*(named if word == "C" else word for word in words))
    assert status == 2
    assert "empty" in err
    assert run("info", named, "--json")[1].count('"image": 4') == 1


def test_remove(named: str, tmp_path: Path, run) -> None:
    status, out, err = run("remove", named, "img_*.png", str(tmp_path / "gone"))
    assert (status, out) == (0, "forgot 1 item; the files were not touched\n")
    assert err == f"trivium: the collection has nothing at {tmp_path / 'gone'}\n"
    assert run("remove", named, "img_*.png")[0] == 1
    assert run("remove", named, str(tmp_path / "m"))[0] == 0
    assert run("remove", named, str(tmp_path / "m"))[0] == 1
