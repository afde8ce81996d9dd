"""The command line's contract: what is printed where, and the exit status."""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trivium.encoders import devices
from trivium.encoders.base import WeightsError
from trivium.pipeline import collection as collection_module
from trivium.pipeline.cli.main import LIST, command_parser, main
from trivium.pipeline.ingest import ingestion as ingestion_module
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing


@pytest.fixture(autouse=True)
def stub(space, monkeypatch: pytest.MonkeyPatch):
    """The commands load the stub instead of networks."""
    monkeypatch.setattr(collection_module, "load_space", lambda *_, **__: space)
    return space


@pytest.fixture
def indexed(tmp_path: Path, media: Path, capsys: pytest.CaptureFixture[str]) -> str:
    folder = str(tmp_path / "collection")
    assert main(["index", folder, str(media), "--device", "cpu"]) == 0
    capsys.readouterr()
    return folder


def single_valued() -> Iterator[tuple[str, list[str]]]:
    """Every option of every command that takes one value: how the command is called, and the option twice."""
    for name in LIST:
        todo: list[tuple[list[str], argparse.ArgumentParser]] = [([name], command_parser(name))]
        while todo:
            words, parser = todo.pop()
            for action in parser._actions:
                if isinstance(action, argparse._SubParsersAction):
                    todo += [([*words, sub], of) for sub, of in action.choices.items()]
                elif action.option_strings and action.nargs is None and not isinstance(action, argparse._AppendAction):
                    option = action.option_strings[-1]
                    value = str(next(iter(action.choices))) if action.choices else value_of(action)
                    yield " ".join([*words, option]), [*words, option, value, option, value]


def value_of(action: argparse.Action) -> str:
    """A value that the option takes."""
    for value in ("1", "0.5", "1/2", "x"):
        try:
            (action.type or str)(value)  # type: ignore[operator]
        except (argparse.ArgumentTypeError, ValueError):
            continue
        return value
    raise AssertionError(action)


TWICE = dict(single_valued())


def test_there_are_options_to_give_twice() -> None:
    assert len(TWICE) > 60
    assert {"index --space", "search -k", "search --only", "bench --device", "classify train --out"} <= TWICE.keys()


@pytest.mark.parametrize("words", TWICE.values(), ids=TWICE)
def test_what_takes_one_value_is_refused_twice(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "is given twice, and takes one value" in capsys.readouterr().err


def test_several_tables_and_expressions(tmp_path: Path, media: Path, run) -> None:
    for number, row in enumerate(("red.png,1,1", "red.png,2,2\nblue.jpg,2,2")):
        (media / f"{number}.csv").write_text(f"path,a,b{number}\n{row}\n")
    tables = [word for number in range(2) for word in ("--metadata", str(media / f"{number}.csv"))]
    status, out, _ = run("index", str(tmp_path / "c"), str(media), "--device", "cpu", *tables)
    assert (status, "0 skipped" in out) == (0, True), out
    search = ["search", str(tmp_path / "c"), "x", "--json", "--device", "cpu"]

    def found(*words: str) -> set[str]:
        status, out, _ = run(*search, *words)
        assert status == 0
        return {os.path.basename(hit["path"]) for hit in json.loads(out)["hits"]}

    assert found("--where", "a = 2") == {"red.png", "blue.jpg"}
    assert found("--where", "a = 2", "--where", "b0 = 1") == {"red.png"}
    assert found("--where", "a = 2", "--where", "b0 = 2") == set()


def test_index_tells_counts_and_reasons(tmp_path: Path, media: Path, run) -> None:
    (media / "bad\n.jpg").write_text("text")
    status, out, _ = run("index", str(tmp_path / "c"), str(media))
    assert status == 0
    assert "7 indexed (7 new, 0 changed)" in out
    assert "1 skipped" in out
    assert "bad\\n.jpg: not a picture" in out
    made = out[out.index("(vectors made: ") :].strip()
    assert sorted(made.removeprefix("(vectors made: ").removesuffix(")").split(", ")) == [
        "2 audio",
        "3 image",
        "4 text",
    ]
    status, out, _ = run("index", str(tmp_path / "c"), str(media), "--strict")
    assert status == 3
    assert "0 indexed (0 new, 0 changed), 7 unchanged" in out


def test_index_tells_of_files_that_are_cut_off(tmp_path: Path, media: Path, picture, run) -> None:
    whole = picture(media / "sea.jpg", "navy").read_bytes()
    (media / "sea.jpg").write_bytes(whole[:-2])
    sound = (media / "low.wav").read_bytes()
    (media / "low.wav").write_bytes(sound[: len(sound) // 2])
    status, out, _ = run("index", str(tmp_path / "strict"), str(media), "--strict")
    assert status == 3
    assert "7 indexed (7 new, 0 changed)" in out
    assert re.search(r"skipped .*low\.wav: truncated: the header says 3,200 bytes of sound, 1,578 are there", out)
    assert re.search(r"note on .*sea\.jpg: the file is cut off behind its last pixel; all of the picture is there", out)
    status, out, _ = run("index", str(tmp_path / "c"), str(media))
    assert status == 0
    assert "8 indexed (8 new, 0 changed)" in out
    assert re.search(r"note on .*low\.wav: only the first 0\.1 s could be decoded: the header says 3,200 bytes", out)


def test_index_json(tmp_path: Path, media: Path, run) -> None:
    status, out, _ = run("index", str(tmp_path / "c"), str(media), "--json")
    told = json.loads(out)
    assert status == 0
    assert (told["indexed"], told["unchanged"], told["removed"], told["skipped"]) == (7, 0, 0, [])
    assert told["encoded"] == {"text": 4, "image": 3, "audio": 2}


def test_index_of_nothing(tmp_path: Path, run) -> None:
    status, _, err = run("index", str(tmp_path / "c"), str(tmp_path / "nothing"))
    assert status == 1
    assert "no such file or folder" in err
    assert not (tmp_path / "c").exists()


def test_search_json_is_one_object_and_nothing_else(indexed: str, media: Path, run) -> None:
    status, out, _ = run("search", indexed, "A red sign.", "-k", "3", "--json")
    told = json.loads(out)
    assert status == 0
    assert list(told) == ["query", "space", "hits"]
    assert told["space"] == "stub"
    assert told["query"] == [{"modality": "text", "item": "A red sign.", "weight": 1.0}]
    assert len(told["hits"]) == 3
    best = told["hits"][0]
    assert best["score"] == pytest.approx(1, abs=1e-3)
    del best["score"]
    path = str(media / "red.png")
    caption = "A red sign."
    rest: dict[str, Any] = {"matched": "caption", "start": None, "stop": None, "metadata": {}, "relevance": None}
    rest |= {"is_missing": False, "copies": []}
    assert best.pop("metadata") == {"height": 24, "width": 32}
    del rest["metadata"]
    assert best == {"path": path, "modality": "image", "caption": caption, **rest}


def test_search_by_several_parts(indexed: str, media: Path, run) -> None:
    arguments = ["--image", str(media / "red.png"), "--audio", f"-0.5:{media / 'low.wav'}", "-crowd", "--json"]
    _, out, _ = run("search", indexed, "2:beach", *arguments)
    told = [(part["modality"], part["weight"]) for part in json.loads(out)["query"]]
    assert told == [("text", 2.0), ("text", -1.0), ("image", 1.0), ("audio", -0.5)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["2:beach", "-crowd", "--only", "image", "-k", "3"],
        ["--only", "image", "2:beach", "-crowd", "-k3"],
        ["-k", "3", "2:beach", "--only=image", "--text", "-crowd"],
        ["--only", "image", "-k", "3", "--", "2:beach", "-crowd"],
    ],
)
def test_texts_and_options_in_any_order(indexed: str, run, arguments: list[str]) -> None:
    status, out, _ = run("search", indexed, "--json", *arguments)
    told = json.loads(out)
    assert status == 0
    assert [(part["item"], part["weight"]) for part in told["query"]] == [("beach", 2.0), ("crowd", -1.0)]
    assert len(told["hits"]) == 3


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("nonsense", "a device is auto, cpu, cuda (all GPUs), cuda:N or mps, got 'nonsense'"),
        ("cuda:99", "the device 'cuda:99' cannot be used here: there is no driver of a GPU"),
    ],
)
def test_device_that_is_not_there(indexed: str, run, monkeypatch, device: str, told: str) -> None:
    monkeypatch.setattr(devices, "_may_have_cuda", lambda: False)
    status, out, err = run("search", indexed, "x", "--device", device)
    assert (status, out, err) == (2, "", f"trivium: {told}\n")


def test_search_only_and_table(indexed: str, run) -> None:
    status, out, _ = run("search", indexed, "x", "--only", "audio", "-k", "50")
    lines = out.splitlines()
    assert status == 0
    assert len(lines) == 2
    assert all(line.split("\t")[1] == "audio" for line in lines)


def test_search_writes_a_page(indexed: str, tmp_path: Path, run) -> None:
    page = tmp_path / "out.html"
    status, out, err = run("search", indexed, "x", "--html", str(page), "--json")
    assert status == 0
    json.loads(out)
    assert "red.png" in page.read_text()
    assert "out.html" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "empty query"),
        ([""], "empty query"),
        (["--image", ""], "empty query"),
        (["x", "--image", "nothing.png"], "image of the query cannot be used"),
        (["x", "-x"], "cancel out"),
    ],
)
def test_queries_that_cannot_be_answered(indexed: str, run, arguments: list[str], message: str) -> None:
    status, out, err = run("search", indexed, *arguments)
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("arguments", [["-k", "0"], ["-k", "-3"], ["-k", "x"], ["--only", "song"], ["--nonsense"]])
def test_wrong_usage(indexed: str, capsys, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["search", indexed, "x", *arguments])
    assert stopped.value.code == 2
    assert capsys.readouterr().out == ""


def test_k_above_the_size(indexed: str, run) -> None:
    _, out, _ = run("search", indexed, "x", "-k", "1000000", "--json")
    assert len(json.loads(out)["hits"]) == 7


@pytest.mark.parametrize("command", [["search", "C", "x"], ["info", "C"], ["remove", "C", "x"]])
def test_missing_collection(tmp_path: Path, run, command: list[str]) -> None:
    status, out, err = run(*(str(tmp_path / "gone") if word == "C" else word for word in command))
    assert (status, out) == (1, "")
    assert "no collection at" in err


def test_locked_collection(indexed: str, media: Path, run) -> None:
    with writing(Store(Path(indexed))):
        status, _, err = run("index", indexed, str(media))
    assert status == 75
    assert f"pid {os.getpid()}" in err


def test_info(indexed: str, run) -> None:
    _, out, _ = run("info", indexed, "--json")
    told = json.loads(out)
    assert told["items"] == {"audio": 2, "image": 3, "text": 2}
    assert told["space"] == {"name": "stub", "dim": 16, "revision": "1"}
    _, out, _ = run("info", indexed)
    assert "7 (2 audio, 3 image, 2 text)" in out


def test_remove(indexed: str, media: Path, run) -> None:
    status, out, _ = run("remove", indexed, str(media / "deep"), str(media / "red.png"))
    assert status == 0
    assert "forgot 3 items" in out
    assert (media / "red.png").exists()


def test_spaces_lists_the_default(run) -> None:
    status, out, _ = run("spaces", "--json")
    (space, *_) = json.loads(out)["spaces"]
    assert status == 0
    assert (space["name"], space["dim"], space["default"]) == ("trivium-base", 768, True)


def test_interrupt_and_missing_weights(tmp_path: Path, media: Path, run, monkeypatch) -> None:
    for error, status, words in [
        (KeyboardInterrupt(), 130, "what was done is kept"),
        (WeightsError("no network"), 1, "no network"),
        (OSError(28, "No space left on device"), 1, "No space left"),
    ]:

        def fail(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(ingestion_module, "ingest", fail)
        got, _, err = run("index", str(tmp_path / "c"), str(media))
        assert got == status
        assert words in err


def test_help_is_quick_and_light() -> None:
    code = (
        "import sys; from trivium.pipeline.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'faiss', 'PIL', 'rich', 'numpy', 'shtab'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("name", LIST)
def test_each_listed_command_has_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: trivium {name} [-h]")


def test_help_of_no_command_brings_torch() -> None:
    code = (
        "import sys; from trivium.pipeline.cli.main import LIST, command_parser\n"
        "[command_parser(name).format_help() for name in LIST]\n"
        "assert not {'torch', 'rich', 'pandas', 'shtab'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_commands_are_listed_by_group(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    groups = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert groups == ["options:", "search:", "collections:", "spaces:", "learning:", "this program:"]
    assert [line.split()[0] for line in lines if line[:2] == "  " and line[2] not in " -"] == list(LIST)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["--nonsense"], "the following arguments are required: COMMAND"),
        (["sear", "c", "x"], "invalid choice: 'sear' (choose from 'index', 'search', "),
        (["info", "c", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["--nonsense", "info", "c"], "unrecognized arguments: --nonsense"),
    ],
)
def test_what_is_no_command(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("usage: trivium [-h] [--version] COMMAND ...\ntrivium: error: ")
    assert told in found.err
    assert "words" not in found.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, run) -> None:
    status, out, _ = run("completion", shell)
    assert status == 0
    assert all(word in out for word in (*LIST, "explain-hits", "learning-rate"))
    if shell == "bash":
        asked = "COMP_WORDS=(trivium search --explain-h); COMP_CWORD=2; _shtab_trivium; echo ${COMPREPLY[@]}"
        done = subprocess.run(["bash", "-c", f"{out}\n{asked}"], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["--explain-hits"]
    assert "%%" not in out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("index hol", "holiday"),
        ("index holiday ph", "photo.jpg"),
        ("info hol", "holiday"),
        ("search holiday --image ph", "photo.jpg"),
        ("align ph", "photo.jpg"),
        ("classify predict hol", "holiday"),
    ],
)
def test_files_are_completed(tmp_path: Path, run, words: str, found: str) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "photo.jpg").touch()
    count = len(words.split(" "))
    asked = f"COMP_WORDS=(trivium {words}); COMP_CWORD={count}; _shtab_trivium; echo ${{COMPREPLY[@]}}"
    script = f"{run('completion', 'bash')[1]}\n{asked}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert [name.rstrip("/") for name in done.stdout.split()] == [found]


def test_reader_that_stops_reading(indexed: str) -> None:
    """`trivium info | head -0` ends quietly."""
    command = f"{sys.executable} -m trivium.pipeline.cli.main info {indexed} --json | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr


def test_explanations(tmp_path: Path, indexed: str, media: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (media / "deep" / "green.webp").unlink()
    status, out, _ = run("search", indexed, "a red sign", "--explain", "--explain-hits", "7", "--json")
    assert status == 0
    told = {Path(hit["path"]).name: hit["explanation"] for hit in json.loads(out)["hits"]}
    assert len(told) == 7
    assert [mark["text"] for mark in told["blue.jpg"]["query"]] == ["a", "red", "sign"]
    assert len(told["blue.jpg"]["regions"]) == 7
    assert Path(told["blue.jpg"]["overlay"]).is_file()
    assert Path(told["blue.jpg"]["overlay"]).parent == Path("explanations")
    assert [mark["text"] for mark in told["note.md"]["words"]] == ["Shopping", "milk", "and", "bread"]
    assert told["green.webp"] == {"reason": "the file is gone"}


def test_only_the_first_hits_are_explained(tmp_path: Path, indexed: str, run) -> None:
    found = ["search", indexed, "a red sign", "--explain-hits", "2", "--explain", str(tmp_path / "out"), "--json"]
    hits = json.loads(run(*found)[1])["hits"]
    assert [hit["explanation"] is None for hit in hits] == [False] * 2 + [True] * 5
    assert "explanation" not in json.loads(run("search", indexed, "a red sign", "--json")[1])["hits"][0]


def test_lines_and_pages_tell_why(tmp_path: Path, indexed: str, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "pages" / "out.html"
    page.parent.mkdir()
    words = ["search", indexed, "a red sign", "--only", "image", "--path", "*.jpg", "--explain", "out"]
    status, out, _ = run(*words, "--html", str(page))
    assert status == 0
    (line,) = out.splitlines()
    assert line.split("\t")[4].endswith(f"regions: {Path('out') / '01-blue.png'}")
    assert '<img class="over" src="./../out/01-blue.png"' in page.read_text()
    assert '<img class="own" src="data:image/webp;base64,' in page.read_text()
    status, out, _ = run(*words[:-2])
    assert len(out.splitlines()[0].split("\t")) == 4


def test_what_is_written_is_private_whole_and_follows_no_link(tmp_path: Path, indexed: str, run) -> None:
    victim, documents = tmp_path / "bashrc", tmp_path / "Documents"
    victim.write_text("mine")
    documents.mkdir()
    (tmp_path / "page.html").symlink_to(victim)
    (tmp_path / "explanations").symlink_to(documents)
    for option, name in (("--html", "page.html"), ("--explain", "explanations")):
        status, _, err = run("search", indexed, "x", "--only", "image", option, str(tmp_path / name))
        assert status == 1
        assert f"{name} is a link" in " ".join(err.split())
    assert victim.read_text() == "mine"
    assert list(documents.iterdir()) == []
    assert run("search", indexed, "x", "--html", str(tmp_path / "own.html"))[0] == 0
    assert (tmp_path / "own.html").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written(tmp_path: Path, indexed: str, run) -> None:
    (tmp_path / "file").write_text("no folder")
    status, _, err = run("search", indexed, "x", "--only", "image", "--explain", str(tmp_path / "file"))
    assert status == 1
    assert "file is not a folder: name another one" in err


def test_a_page_takes_no_letters_place(indexed: str, run, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Ada,")
    status, _, err = run("search", indexed, "A red sign.", "--html", str(tmp_path / "letter.txt"))
    assert status == 2
    assert "there is a file that is no page: name another one" in err
    assert (tmp_path / "letter.txt").read_text() == "Dear Ada,"
    for _ in range(2):  # a page is replaced by the next
        assert run("search", indexed, "A red sign.", "--html", str(tmp_path / "page.html"))[0] == 0


def test_what_lies_in_the_working_folder_is_not_imported(tmp_path: Path) -> None:
    for name in ("numpy.py", "faiss.py", "argparse.py", "sqlite3.py", "trivium_more.py"):
        (tmp_path / name).write_text("import os; os._exit(99)")
    done = subprocess.run([sys.executable, "-m", "trivium", "spaces"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0


def test_a_link_to_nothing_is_told(run, tmp_path: Path) -> None:
    (tmp_path / "c").symlink_to(tmp_path / "nowhere")
    status, _, err = run("info", str(tmp_path / "c"))
    assert status == 1
    assert "is a link to what is not there" in " ".join(err.split())
