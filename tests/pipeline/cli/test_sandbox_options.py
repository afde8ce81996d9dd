"""Commands where files cannot be decoded safely, or not at all: one message and an exit status."""

import io
import logging
import os
import re
import sys
import threading
from pathlib import Path

import pytest

from trivium.encoders.sandbox import mode as sandbox_mode
from trivium.encoders.sandbox import starts as decode_starts
from trivium.pipeline import collection as collection_module
from trivium.pipeline.cli.main import main, parse
from trivium.pipeline.collection import Collection

WITHOUT_LANDLOCK = "import sys; sys.path.insert(0, sys.argv[2])\nfrom trivium.encoders.sandbox import landlock\n"
WITHOUT_LANDLOCK += "landlock.restrict = lambda _: 0\n"
DECODING = (
    *("index", "search", "shell", "bench", "migrate", "align", "features", "evaluate", "zero-shot"),
    *("classify train", "classify predict", "classify report"),
)


@pytest.fixture
def collection(tmp_path: Path, media: Path, space, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(collection_module, "load_space", lambda *_, **__: space)
    with Collection.open(tmp_path / "collection", space=space) as made:
        made.add(media)
    return str(tmp_path / "collection")


@pytest.fixture
def no_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_starts, "BOOTSTRAP", WITHOUT_LANDLOCK + decode_starts.BOOTSTRAP)
    monkeypatch.setattr(sandbox_mode, "_told", threading.Event())
    monkeypatch.delenv("TRIVIUM_SANDBOX", raising=False)


def test_strict_refuses_what_it_cannot_isolate(collection: str, media: Path, no_landlock: None, capsys) -> None:
    query = ["search", collection, "--image", str(media / "red.png"), "--json"]
    assert main([*query, "--sandbox", "strict"]) == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert re.fullmatch(r"trivium: the sandbox is not whole on this system: it lacks landlock\..*\n", found.err)
    assert "TRIVIUM_SANDBOX" not in os.environ


def test_strict_refuses_an_index_run(collection: str, media: Path, no_landlock: None, monkeypatch, capsys) -> None:
    (media / "new.png").write_bytes((media / "red.png").read_bytes() + b"another")
    monkeypatch.setenv("TRIVIUM_SANDBOX", "strict")
    assert main(["index", collection, str(media)]) == 1
    assert "Nothing is decoded" in capsys.readouterr().err


def test_auto_says_it_once(collection: str, media: Path, no_landlock: None, caplog, capsys) -> None:
    query = ["search", collection, "--image", str(media / "red.png"), "--json"]
    with caplog.at_level(logging.WARNING):
        assert main(query) == main([*query, "--sandbox", "auto"]) == 0
    (message,) = caplog.messages
    assert "lacks landlock" in message
    assert "red.png" in capsys.readouterr().out


@pytest.mark.parametrize("command", DECODING)
def test_each_command_that_decodes_has_the_options(command: str, capsys) -> None:
    with pytest.raises(SystemExit):
        parse([*command.split(), "--help"])
    told = capsys.readouterr().out
    assert "--sandbox {auto,strict}" in told
    assert "--max-megapixels N" in told


def test_larger_pictures_on_request(collection: str, media: Path, picture, monkeypatch, capsys) -> None:
    monkeypatch.delenv("TRIVIUM_MAX_MEGAPIXELS", raising=False)
    large = str(picture(media / "large.png", "green", size=(1500, 1000)))
    for command in (["index", collection, large, "--strict"], ["search", collection, "--image", large]):
        assert main([*command, "--max-megapixels", "1.4"]) == (3 if command[0] == "index" else 2)
        found = capsys.readouterr()
        assert "too many pixels: 1500 x 1000, the limit is 1,400,000 (--max-megapixels or" in found.out + found.err
        assert main([*command, "--max-megapixels", "1.5"]) == 0
        assert "TRIVIUM_MAX_MEGAPIXELS" not in os.environ
    assert "large.png" in capsys.readouterr().out
    assert main(["index", collection, large, "--max-megapixels", "0"]) == 1
    assert "TRIVIUM_MAX_MEGAPIXELS: max_megapixels must be above 0 and at most 4295, got 0.0" in capsys.readouterr().err


def test_a_decoder_that_cannot_start_is_one_message(collection: str, media: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(decode_starts, "BOOTSTRAP", "import no_such_module")
    assert main(["search", collection, "--image", str(media / "red.png")]) == 1
    assert re.fullmatch(r"trivium: a process to decode in ended at its start .*\n", capsys.readouterr().err)


def test_the_shell_goes_on(collection: str, media: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(decode_starts, "BOOTSTRAP", "import no_such_module")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"image:{media / 'red.png'}\nA red sign.\n"))
    assert main(["shell", collection, "-k", "1"]) == 0
    found = capsys.readouterr()
    assert re.fullmatch(r"trivium: a process to decode in ended at its start .*\n", found.err)
    assert "red.png" in found.out


@pytest.mark.parametrize("command", ["index", "shell"])
def test_no_more_threads(command: str, collection: str, media: Path, monkeypatch, capsys) -> None:
    """As under `ulimit -u 3`, whichever library wants the thread."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    (media / "new.png").write_bytes((media / "red.png").read_bytes() + b"another")
    if command == "shell":
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"image:{media / 'red.png'}\n:quit\n"))
        monkeypatch.setattr(Collection, "search_parts", fail)
        assert main(["shell", collection]) == 0
    else:
        monkeypatch.setattr(threading.Thread, "start", fail)
        assert main(["index", collection, str(media)]) == 1
    told = capsys.readouterr().err
    assert "trivium: no thread can be started: too many processes or threads" in told
    assert "Traceback" not in told


def test_other_runtime_errors_are_not_taken_for_it(collection: str, monkeypatch, capsys) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Collection, "search_parts", fail)
    monkeypatch.setattr(sys, "stdin", io.StringIO("A red sign.\n"))
    for command, status in ((["search", collection, "x"], 1), (["shell", collection], 0)):
        assert main(command) == status
        assert "unexpected RuntimeError: a bug" in capsys.readouterr().err
