"""The command line's contract for metadata, filters, index wishes, and what looks after a collection."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trivium.pipeline import collection as collection_module
from trivium.pipeline.cli.main import main
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing


@pytest.fixture(autouse=True)
def stub(space, make_space, monkeypatch: pytest.MonkeyPatch):
    """The commands load stubs instead of networks; the space "other" is another one."""
    monkeypatch.setattr(
        collection_module, "load_space", lambda name, **_: make_space("2") if str(name).endswith("other") else space
    )


@pytest.fixture
def indexed(tmp_path: Path, media: Path, capsys: pytest.CaptureFixture[str]) -> str:
    folder = str(tmp_path / "collection")
    (media / "table.csv").write_text("path,year\nred.png,2020\ndeep/high.ogg,2021\n")
    (media / "blue.json").write_text('{"year": 2022}')
    assert main(["index", folder, str(media), "--metadata", str(media / "table.csv"), "--device", "cpu"]) == 0
    capsys.readouterr()
    return folder


def found(run: Callable[..., tuple[int, str, str]], *arguments: str) -> set[str]:
    status, out, err = run("search", *arguments, "--json")
    assert status == 0, err
    return {os.path.basename(hit["path"]) for hit in json.loads(out)["hits"]}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--where", "year >= 2021"], {"high.ogg", "blue.jpg"}),
        (["--where=year >= 2021", "--only", "image"], {"blue.jpg"}),
        (["--path", "*.png", "--path", "deep/*"], {"red.png", "green.webp", "high.ogg"}),
        (["--path=deep/*", "--where", "has year"], {"high.ogg"}),
    ],
)
def test_filters(indexed: str, run, options: list[str], expected: set[str]) -> None:
    assert found(run, indexed, "x", *options) == expected
    assert found(run, indexed, *options, "x") == expected


def test_metadata_in_hits(indexed: str, run) -> None:
    _, out, _ = run("search", indexed, "x", "--where", "year = 2022", "--json")
    (hit,) = json.loads(out)["hits"]
    assert hit["metadata"]["year"] == 2022
    assert hit["metadata"].keys() <= {"year", "width", "height", "seconds"}


def test_a_key_that_no_item_has_is_told(indexed: str, run) -> None:
    status, out, err = run("search", indexed, "x", "--where", "yaer = 2022")
    assert (status, out) == (0, "no hits: the collection has no such items\n")
    assert "no item has metadata 'yaer'" in err
    _, _, err = run("search", indexed, "x", "--where", "year = 1900")
    assert "no item has" not in err


def test_expressions_that_cannot_be_understood(indexed: str, run) -> None:
    status, out, err = run("search", indexed, "x", "--where", "year >")
    assert (status, out) == (2, "")
    assert err.splitlines()[-2:] == ["year >", "      ^"]


def test_a_table_that_is_missing(indexed: str, media: Path, run) -> None:
    status, _, err = run("index", indexed, str(media), "--metadata", "gone.csv")
    assert status == 1
    assert "gone.csv cannot be read" in err


def test_index_wishes(indexed: str, media: Path, run) -> None:
    options = ["--index", "sq8", "--recall", "0.9", "--memory", "2GB", "--latency", "5"]
    status, out, _ = run("index", indexed, str(media), *options)
    assert status == 0
    assert "index of image: sq8: asked for" in out
    told = json.loads(run("info", indexed, "--json")[1])
    assert told["wish"] == {"kind": "sq8", "recall": 0.9, "memory_bytes": 2 * 10**9, "latency_ms": 5.0}
    assert {file["kind"] for file in told["indexes"].values()} == {"sq8"}
    _, out, _ = run("info", indexed)
    assert "index       image: sq8, 3 vectors" in out
    assert "recall@10 " in out
    assert "sq8: asked for" in out
    assert found(run, indexed, "x") == found(run, indexed, "x", "--where", "name contains .")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--index", "magic"], "unknown index kind 'magic'; known: flat"),
        (["--recall", "1.5"], "recall must be above 0 and at most 1, got 1.5"),
        (["--latency", "0"], "latency_ms must be above 0, got 0"),
    ],
)
def test_wishes_out_of_range(indexed: str, run, options: list[str], message: str) -> None:
    status, _, err = run("rebuild", indexed, *options)
    assert status == 2
    assert message in err


def test_memory_that_is_no_size(indexed: str, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["rebuild", indexed, "--memory", "much"])
    assert stopped.value.code == 2
    assert "'much' is no size" in capsys.readouterr().err


def test_verify(indexed: str, run) -> None:
    status, out, _ = run("verify", indexed, "--read-data", "--media")
    assert status == 0
    assert "is sound" in out
    shard = next((Path(indexed) / "vectors").iterdir())
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert run("verify", indexed)[0] == 0  # sizes are right
    status, out, _ = run("verify", indexed, "--read-data")
    assert status == 1
    assert f"damage: {shard}" in out
    status, out, _ = run("verify", indexed, "--read-data", "--json")
    told = json.loads(out)
    assert (status, told["sound"]) == (1, False)
    assert [finding["path"] for finding in told["findings"] if finding["is_damage"]] == [str(shard)]


def test_verify_in_parts(indexed: str, run, capsys) -> None:
    for number in (1, 2, 3):
        status, out, _ = run("verify", indexed, "--read-data", "--media", "--part", f"{number}/3")
        assert status == 0
        assert f"read, part {number} of 3)" in out
    assert json.loads(run("verify", indexed, "--media", "--part", "2/5", "--json")[1])["part"] == [2, 5]
    status, out, err = run("verify", indexed, "--part", "1/7")
    assert (status, out) == (2, "")
    assert "--part says how much of --read-data or --media is read" in err
    for text in ("0/7", "8/7", "1/0", "one", "1/7/2", "-1/7"):
        with pytest.raises(SystemExit) as stopped:
            main(["verify", indexed, "--read-data", f"--part={text}"])
        assert stopped.value.code == 2
        assert f"'{text}' is no part: write 1/7" in capsys.readouterr().err


def test_rebuild(indexed: str, run) -> None:
    _, out, _ = run("rebuild", indexed)
    assert "needs no index files" in out
    _, out, _ = run("rebuild", indexed, "--index", "hnsw")
    assert "image: 3 vectors; hnsw: asked for" in out


def test_compact(indexed: str, media: Path, run) -> None:
    run("remove", indexed, str(media / "deep"))
    status, out, _ = run("compact", indexed)
    assert status == 0
    assert out.startswith("3 vectors deleted, 1 of the thumbnails; ")


@pytest.mark.parametrize("name", ["out.parquet", "out.npy"])
def test_export_and_import(indexed: str, tmp_path: Path, run, name: str) -> None:
    file, copy = str(tmp_path / name), str(tmp_path / "copy")
    status, out, _ = run("export", indexed, file, "--where", "has year")
    assert (status, out) == (0, f"5 vectors written to {file}\n")  # three items, two captions
    assert run("export", indexed, file)[0] == 1
    assert run("export", indexed, file, "--overwrite")[1] == f"9 vectors written to {file}\n"
    status, out, _ = run("import", copy, file)
    assert status == 0
    assert out.startswith("9 rows read: 7 items new, 0 updated; ")
    assert found(run, copy, "x", "--where", "year >= 2021") == {"high.ogg", "blue.jpg"}
    told = json.loads(run("import", copy, file, "--json")[1])
    assert (told["rows"], told["added"], told["vectors"]) == (9, 0, 0)


def test_migrate(indexed: str, media: Path, run) -> None:
    (media / "red.png").unlink()
    status, out, err = run("migrate", indexed, "--space", "other", "--device", "cpu")
    assert status == 1
    assert "red.png" in out
    assert "--drop-missing" in err
    status, out, _ = run("migrate", indexed, "--space", "other", "--drop-missing", "--device", "cpu", "--json")
    assert (status, json.loads(out)["dropped"]) == (0, 1)
    assert json.loads(run("info", indexed, "--json")[1])["space"]["revision"] == "2"


def test_a_migration_goes_by_device_and_precision(indexed: str, run, make_space, monkeypatch) -> None:
    asked = []

    def load(name: str, **options: object) -> object:
        asked.append((name, options["device"], options["precision"]))
        return make_space("2")

    monkeypatch.setattr(collection_module, "load_space", load)
    status, _, err = run("migrate", indexed, "--space", "other", "--device", "cpu-torch", "--precision", "int8")
    assert (status, asked) == (0, [(os.path.abspath("other"), "cpu-torch", "int8")]), err


@pytest.mark.parametrize(
    "command",
    [
        ["rebuild", "C"],
        ["compact", "C"],
        ["import", "C", "x.npy"],
        ["migrate", "C", "--space", "other"],
        ["verify", "C"],
    ],
)
def test_locked(indexed: str, run, command: list[str]) -> None:
    with writing(Store(Path(indexed))):
        status, _, err = run(*(indexed if word == "C" else word for word in command))
    if command[0] == "import":
        assert status in (1, 75)  # the file is missing too
    else:
        assert status == 75
        assert f"pid {os.getpid()}" in err


@pytest.mark.parametrize("command", [["verify", "C"], ["rebuild", "C"], ["compact", "C"], ["export", "C", "x.npy"]])
def test_missing_collection(tmp_path: Path, run, command: list[str]) -> None:
    status, out, err = run(*(str(tmp_path / "gone") if word == "C" else word for word in command))
    assert (status, out) == (1, "")
    assert "no collection at" in err
