"""`trivium index` without media, `info` and `watch`: a collection that knows what it was made of."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assets import ASSETS
from trivium.pipeline.cli.main import main
from trivium.pipeline.collection import Collection


@pytest.fixture
def indexed(tmp_path: Path, media: Path, capsys: pytest.CaptureFixture[str]) -> str:
    folder = str(tmp_path / "collection")
    assert main(["index", folder, str(media), "--device", "cpu", "--no-captions"]) == 0
    capsys.readouterr()
    return folder


def test_index_alone_brings_all_up_to_date(indexed: str, media: Path, run, picture) -> None:
    picture(media / "new.png", "pink")
    status, out, _ = run("index", indexed)
    assert (status, "1 indexed (1 new, 0 changed), 7 unchanged" in out) == (0, True)
    out = run("info", indexed)[1]
    assert f"made of     {media} --no-captions\n" in out
    assert json.loads(run("info", indexed, "--json")[1])["roots"][str(media)]["settings"]["captions"] is False


def test_one_that_knows_no_folders_says_what_to_do(indexed: str, media: Path, run) -> None:
    assert run("index", indexed, "--forget", str(media))[0] == 0
    for command in ("index", "watch"):
        status, _, err = run(command, indexed)
        assert status == 1
        assert "name the files and folders to `trivium index` once more" in err
    status, _, err = run("index", indexed, "--forget", str(media))
    assert (status, "is not what" in err) == (1, True)


def test_an_empty_mount_point_is_told(indexed: str, media: Path, run) -> None:
    media.rename(media.parent / "away")
    media.mkdir()
    status, out, err = run("index", indexed)
    assert status == 4
    assert "7 items are missing: kept, though their files are gone" in out
    assert f"{media}: all of its files are gone; its items are kept" in err
    assert "missing     7 items" in run("info", indexed)[1]
    assert "(missing)" in run("search", indexed, "a red sign")[1]
    assert all(hit["is_missing"] for hit in json.loads(run("search", indexed, "a red sign", "--json")[1])["hits"])
    page = media.parent / "page.html"
    run("search", indexed, "a red sign", "--html", str(page))
    assert "(missing: the file was gone" in page.read_text()
    assert run("verify", indexed, "--media")[1].count("it is missing") == 7
    summary = json.loads(run("index", indexed, "--json")[1])
    assert (summary["missing"], summary["vanished"]) == (
        7,
        [{"path": str(media), "reason": "all of its files are gone"}],
    )
    assert run("index", indexed, "--drop-missing")[0] == 0
    assert len(Collection.open(indexed)) == 0


def test_info_lists_what_there_is(indexed: str, media: Path, run) -> None:
    (media / "bad.png").write_bytes(b"no picture")
    (media / "red.png.json").write_text('{"year": 2019}')
    (media / "old.xyz").touch()
    run("index", indexed)
    out = run("info", indexed)[1]
    assert "year: 2019\n" in out
    assert "1 .xyz: " in out[out.index("passed over ") :]
    assert f"skipped     {media / 'bad.png'}: not a picture" in out


def test_an_interrupted_run_says_how_far_it_came(tmp_path: Path, media: Path, run, monkeypatch) -> None:
    def interrupted(*_: object, progress, **__: object) -> None:
        progress("image", 64, 500)
        raise KeyboardInterrupt

    monkeypatch.setattr(Collection, "add", interrupted)
    status, _, err = run("index", str(tmp_path / "c"), str(media))
    assert (status, "64 of 500 image files came into the collection" in err) == (130, True)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_watch_takes_in_and_ends(tmp_path: Path, media: Path, number: int, status: int) -> None:
    """The real program with the real encoders, as a service would run it."""
    folder = tmp_path / "c"
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "airliner.png").write_bytes((ASSETS / "airliner.png").read_bytes())
    assert main(["index", str(folder), str(photos), "--device", "cpu"]) == 0
    with open(tmp_path / "out", "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "trivium", "watch", str(folder), "--device", "cpu"], stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + 60
        while b"watching" not in (tmp_path / "out").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        while b"1 new" not in (tmp_path / "out").read_bytes():
            assert time.monotonic() < deadline, (tmp_path / "out").read_text()
            if not (photos / "television.png").exists():
                (photos / "television.png").write_bytes((ASSETS / "television.png").read_bytes())
            time.sleep(0.1)
    finally:
        process.send_signal(number)
    assert process.wait(timeout=20) == status
    assert {os.path.basename(hit.path) for hit in Collection.open(folder).search(text="a plane", k=9)} == {
        "airliner.png",
        "television.png",
    }
