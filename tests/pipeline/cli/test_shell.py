"""`trivium shell`: one answer a line, whatever the lines hold; as a prompt, and at the end of a pipe."""

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import trivium
from trivium.encoders.files.user_cache import cache_folder
from trivium.pipeline import collection as collection_module
from trivium.pipeline.cli.main import main
from trivium.pipeline.collection import Collection


@pytest.fixture
def stub(space, monkeypatch: pytest.MonkeyPatch):
    """The commands load the stub instead of networks."""
    monkeypatch.setattr(collection_module, "load_space", lambda *_, **__: space)
    return space


@pytest.fixture
def folder(tmp_path: Path, media: Path, stub) -> str:
    with Collection.open(tmp_path / "collection", space=stub) as collection:
        collection.add(media)
    return str(tmp_path / "collection")


Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Give lines to the shell as a pipe does; return its exit status, output and messages."""

    def run(*lines: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        status = main(["shell", folder, *options])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def objects(out: str) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in out.splitlines()]


def test_an_object_for_each_line(typed: Typed, media: Path) -> None:
    lines = ["A red sign.", "", f"image:{media / 'red.png'} -k 1", 'no "end', "2:beach -crowd --only audio"]
    status, out, err = typed(*lines, options=("--json", "-k", "2"))
    first, second, third, fourth = objects(out)
    assert (status, err) == (0, "")
    assert first["query"] == [{"modality": "text", "item": "A red sign.", "weight": 1.0}]
    assert first["hits"][0]["path"] == str(media / "red.png")
    assert (len(first["hits"]), len(second["hits"])) == (2, 1)
    assert second["hits"][0]["path"] == str(media / "red.png")
    assert third["query"] == 'no "end'
    assert "does not end" in third["error"]
    assert [(part["item"], part["weight"]) for part in fourth["query"]] == [("beach", 2.0), ("crowd", -1.0)]
    assert {hit["modality"] for hit in fourth["hits"]} == {"audio"}


def test_the_answers_are_those_of_search(typed: Typed, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    query = ["2:roses", "-violets", "--only", "image", "-k", "3"]
    main(["search", folder, *query, "--json"])
    expected = capsys.readouterr().out
    assert typed(" ".join(query), options=("--json",))[1] == expected


def test_tables_end_with_an_empty_line(typed: Typed) -> None:
    status, out, err = typed("roses", "violets -k 1")
    assert (status, err) == (0, "")
    assert [len(answer.splitlines()) for answer in out.strip().split("\n\n")] == [7, 1]


def test_settings_hold_until_they_are_changed(typed: Typed, media: Path) -> None:
    lines = [":only image", "x", "x --only audio", "x", ":only", ":k 1", "x", ":k", f":path '{media}/*.png'", "x"]
    lines += [":path", ":where modality = text", "x", "x --where 'modality = audio'", ":where", "x"]
    status, out, err = typed(*lines, options=("--json",))
    assert (status, err) == (0, "")
    found = [sorted({hit["modality"] for hit in told["hits"]}) for told in objects(out)]
    counts = [len(told["hits"]) for told in objects(out)]
    assert found[:3] == [["image"], ["audio"], ["image"]]
    assert counts == [3, 2, 3, 1, 1, 2, 2, 7]
    assert found[4:7] == [["image"], ["text"], ["audio"]]


def test_options_of_the_command_hold_at_first(typed: Typed) -> None:
    _, out, _ = typed("x", ":only", "x", options=("--json", "--only", "audio", "-k", "5"))
    assert [len(told["hits"]) for told in objects(out)] == [2, 5]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (":nonsense", "no command ':nonsense', known are :only, "),
        (":only song", "only must be one of"),
        (":k none", "at least 1, got 'none'"),
        (":where year >", "where"),
        ('x --only "song"', "invalid choice"),
        ("image:nothing.png", "image of the query cannot be used"),
        ("x -x", "cancel out"),
        ("text:", "empty query"),
    ],
)
def test_no_line_ends_it(typed: Typed, line: str, message: str) -> None:
    status, out, err = typed(line, "roses -k 1")
    assert status == 0
    assert message in err
    assert len(out.split("\n")) == 3  # the next line is answered, as if nothing had been


def test_help_and_info(typed: Typed) -> None:
    _, out, err = typed(":k 3", ":only image", ":help", ":info")
    assert err == ""
    assert "now: :only image" in out
    assert ":k 3" in out
    assert "7 (2 audio, 3 image, 2 text) items, 9 vectors" in out


@pytest.mark.parametrize("line", [":quit", ":q"])
def test_quit(typed: Typed, line: str) -> None:
    assert typed(line, "roses") == (0, "", "")


def test_what_others_index_meanwhile_is_found(folder: str, capsys, monkeypatch: pytest.MonkeyPatch, space) -> None:
    def lines() -> Iterator[str]:
        yield "roses --json\n"
        new = Path(folder).parent / "new.txt"
        new.write_text("roses")
        with Collection.open(folder, space=space) as other:
            other.add(new)
        yield "roses --json\n"

    given = lines()
    pipe = io.StringIO()
    monkeypatch.setattr(pipe, "readline", lambda: next(given, ""), raising=False)
    monkeypatch.setattr(sys, "stdin", pipe)
    assert main(["shell", folder]) == 0
    before, after = objects(capsys.readouterr().out.replace("\n\n", "\n"))
    assert (len(before["hits"]), len(after["hits"])) == (7, 8)
    assert os.path.basename(after["hits"][0]["path"]) == "new.txt"


@pytest.mark.parametrize("options", [["--only", "song"], ["-k", "0"], ["--nonsense"]])
def test_wrong_usage(folder: str, options: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["shell", folder, *options])
    assert stopped.value.code == 2


def test_what_cannot_begin(folder: str, tmp_path: Path, capsys) -> None:
    assert main(["shell", str(tmp_path / "nothing")]) == 1
    assert "no collection at" in capsys.readouterr().err
    assert main(["shell", folder, "--where", "year >"]) == 2


class Terminal:
    """The other end of a terminal that a program runs in."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._end, theirs = pty.openpty()
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def read_until(self, text: str, *, seconds: float = 20) -> str:
        """Return what is shown until this comes; fail if it does not."""
        shown, until = "", time.monotonic() + seconds
        while text not in shown:
            ready, _, _ = select.select([self._end], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"no {text!r} in {shown!r}"
            shown += os.read(self._end, 4096).decode(errors="replace")
        return shown

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)


@pytest.fixture
def terminal(tmp_path: Path, weights) -> Iterator[Terminal]:
    """The shell as a user has it, with the real networks, in a terminal of its own."""
    (tmp_path / "note.txt").write_text("A lark sings above the field.")
    with trivium.Collection.open(tmp_path / "real", device="cpu") as made:
        made.add(tmp_path / "note.txt")
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "HOME": str(tmp_path), "TERM": "dumb"}
    environment["TRIVIUM_CACHE"] = str(cache_folder())
    command = [sys.executable, "-m", "trivium", "shell", str(tmp_path / "real"), "--device", "cpu"]
    opened = Terminal(command, environment)
    yield opened
    opened.close()


@pytest.mark.weights
def test_at_a_prompt(terminal: Terminal, tmp_path: Path) -> None:
    assert "1 (1 text) items, space trivium-base" in terminal.read_until("trivium> ")
    terminal.type("what is typed and given up")
    terminal.read_until("given up")
    time.sleep(0.2)  # Python overlooks a signal between an echo and its wait for the next key
    terminal.process.send_signal(signal.SIGINT)  # Ctrl-C
    terminal.read_until("trivium> ")
    terminal.type("a bird's song\n")
    assert "lark sings above" in terminal.read_until("trivium> ")
    terminal.type(":nonsense\n")
    assert "no command" in terminal.read_until("trivium> ")
    terminal.type("\x04")  # Ctrl-D
    assert terminal.process.wait(60) == 0
    (history,) = tmp_path.rglob("shell_history")
    assert history.read_text().splitlines()[-2:] == ["a bird's song", ":nonsense"]
    assert history.stat().st_mode & 0o777 == 0o600
