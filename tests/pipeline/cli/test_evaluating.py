"""`trivium evaluate` and `trivium zero-shot`: what is printed where, what is written, and the exit status."""

import json
import shutil
from pathlib import Path

import pytest

from assets import ASSETS
from trivium.pipeline.cli import evaluating as commands
from trivium.pipeline.cli.main import main
from trivium.pipeline.evaluation import plots
from trivium.pipeline.space.joint import load_space


@pytest.fixture(autouse=True)
def stub(space, monkeypatch: pytest.MonkeyPatch):
    """The commands load the stub instead of networks: real decoding, vectors drawn by content."""
    monkeypatch.setattr(commands, "load_space", lambda *_, **__: space)
    return space


@pytest.fixture
def table(media: Path) -> str:
    """Three pictures, one of them with two captions, and two sounds; and two pictures that cannot be used."""
    (media / "broken.png").write_text("no picture")
    (media / "pairs.csv").write_text(
        "path,caption,split,kind\n"
        "red.png,A red sign.,dev,sign\n"
        "red.png,A sign.,dev,sign\n"
        "blue.jpg,Something blue.,dev,thing\n"
        "deep/green.webp,Something green.,train,thing\n"
        "broken.png,Nothing.,dev,thing\n"
        "gone.png,Gone.,dev,thing\n"
        "low.wav,A low tone.,dev,tone\n"
        "deep/high.ogg,A high tone.,dev,bell\n"
    )
    return str(media / "pairs.csv")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main([*arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_evaluate_json_is_one_object_and_nothing_else(table: str, capsys) -> None:
    status, out, err = run(capsys, "evaluate", "any", table, "--json", "--device", "cpu")
    told = json.loads(out)
    assert status == 0
    assert told["gallery"] == {"text": 6, "image": 3, "audio": 2}
    assert told["recall"]["text->image"]["queries"] == 4
    # No row has both a picture and a sound, and none shares a text.
    assert set(told["recall"]) == {"text->text", "text->image", "text->audio", "image->text", "audio->text"}
    assert told["space"] == {"name": "stub", "dim": 16, "revision": "1"}
    assert told["columns"] == {"text": "caption", "image": "path", "audio": "path"}
    assert told["refused"] == 2
    assert [(row["line"], row["reason"].split(": ")[-1]) for row in told["refused_rows"]] == [
        (6, "the content is in no known image format"),
        (7, f"{Path(table).parent}/gone.png does not exist"),
    ]
    assert "text" in err  # the bars
    assert "image" in err


def test_evaluate_prints_the_protocol_with_the_figures(table: str, capsys) -> None:
    status, out, _ = run(capsys, "evaluate", "any", table, "--seed", "7")
    assert status == 0
    assert out.startswith("query -> gallery")
    assert "seed 7" in out
    assert "stub (16 dimensions, revision 1)" in out
    assert "refused     2 rows" in out
    assert "line 6: " in out


def test_columns_and_where(table: str, capsys) -> None:
    options = ["--where", "split=dev", "--column", "image=path", "--column", "text=kind", "--json"]
    _, out, _ = run(capsys, "evaluate", "any", table, *options)
    told = json.loads(out)
    assert told["gallery"] == {"text": 2, "image": 2}
    assert told["refused"] == 4  # sounds are no pictures


def test_limit(table: str, capsys) -> None:
    _, out, _ = run(capsys, "evaluate", "any", table, "--where", "kind=sign", "--limit", "1", "--json")
    told = json.loads(out)
    assert (told["gallery"], told["rows"]) == ({"text": 2, "image": 1}, 2)


def test_evaluate_writes_a_folder(table: str, tmp_path: Path, capsys) -> None:
    out_folder = tmp_path / "new" / "out"
    _, out, err = run(capsys, "evaluate", "any", table, "--out", str(out_folder), "--json")
    assert sorted(path.name for path in out_folder.iterdir()) == ["evaluation.json", "evaluation.md", "recall.png"]
    assert json.loads((out_folder / "evaluation.json").read_text()) == json.loads(out)
    assert "![recall](recall.png)" in (out_folder / "evaluation.md").read_text()
    assert "\ntrivium: wrote " in err


def test_without_matplotlib_the_picture_is_left_out(table: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(plots, "can_draw", lambda: False)
    status, _, err = run(capsys, "evaluate", "any", table, "--out", str(tmp_path / "out"))
    assert status == 0
    assert "run pip install 'trivium[plots]'" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["evaluation.json", "evaluation.md"]
    assert "![" not in (tmp_path / "out" / "evaluation.md").read_text()


def test_zero_shot_json(table: str, capsys) -> None:
    status, out, _ = run(capsys, "zero-shot", "any", table, "--modality", "image", "--label", "kind", "--json")
    told = json.loads(out)
    assert status == 0
    assert set(told["per_class"]) == {"sign", "thing"}
    assert told["items"] == 3
    assert sum(map(sum, told["confusion"]["matrix"])) == 3
    assert told["prompts"] == ["a photo of a {}.", "{}"]
    assert (told["refused"], told["modality"]) == (4, "image")  # broken, gone, and two sounds


def test_zero_shot_of_sounds_with_templates_and_files(table: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "prompts.txt").write_text("{}\nhear {}\n")
    options = ["--modality", "audio", "--label", "kind", "--templates", str(tmp_path / "prompts.txt")]
    status, out, _ = run(capsys, "zero-shot", "any", table, *options, "--out", str(tmp_path / "out"))
    assert status == 0
    assert "of 2 in 2 classes" in out
    assert "prompts     {}, hear {}" in out
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["confusion.png", "zero-shot.json", "zero-shot.md"]
    assert json.loads((tmp_path / "out" / "zero-shot.json").read_text())["prompts"] == ["{}", "hear {}"]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--column", "image"], 2, "--column is written ROLE=NAME, got 'image'"),
        (["--column", "=x"], 2, "--column is written ROLE=NAME, got '=x'"),
        (["--column", "video=x"], 2, "--column video=...: no such role, there are text, image, audio, label, score"),
        (["--column", "text=a", "--column", "text=b"], 2, "--column text=... is given twice"),
        (["--where", "split"], 2, "--where is written COLUMN=VALUE, got 'split'"),
        (["--device", "nonsense"], 2, "a device is auto, cpu, cuda (all GPUs), cuda:N or mps, got 'nonsense'"),
        (["--column", "text=words"], 1, "has no column 'words' (--column); its columns: 'path', 'caption'"),
        (["--where", "split=none"], 1, "no row that can be used"),
        (["--column", "text="], 1, "nothing in it belongs together"),
    ],
)
def test_what_cannot_be_done(table: str, capsys, options: list[str], status: int, message: str) -> None:
    got, out, err = run(capsys, "evaluate", "any", table, *options)
    assert (got, out) == (status, "")
    assert message in err


def test_zero_shot_that_cannot_be_done(table: str, tmp_path: Path, capsys) -> None:
    start = ["zero-shot", "any", table, "--modality", "image"]
    status, out, err = run(capsys, *start, "--label", "kinds")
    assert (status, out) == (1, "")
    assert "has no column 'kinds' (--column)" in err
    (tmp_path / "prompts.txt").write_text("a photo\n")
    status, out, err = run(capsys, *start, "--label", "kind", "--templates", str(tmp_path / "prompts.txt"))
    assert (status, out) == (2, "")
    assert "line 1: a prompt has {} where the label goes" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "any"],
        ["evaluate", "any", "t.csv", "--limit", "0"],
        ["evaluate", "any", "t.csv", "--seed", "-1"],
        ["zero-shot", "any", "t.csv", "--label", "x"],
        ["zero-shot", "any", "t.csv", "--modality", "video", "--label", "x"],
        ["zero-shot", "any", "t.csv", "--modality", "image"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.weights
def test_real_networks(weights, tmp_path: Path, capsys, monkeypatch) -> None:
    """Five pictures and three sounds of the real space, each asked for by name."""
    real = load_space("trivium-labels")  # once for both
    monkeypatch.setattr(commands, "load_space", lambda *_, **__: real)
    for file in ASSETS.glob("*.*"):
        shutil.copy(file, tmp_path)
    (tmp_path / "pairs.csv").write_text(
        "path,text,kind\n"
        "penguin.svg,a penguin,animal\nstrawberry.jpg,fruit,food\nairliner.png,an airplane,vehicle\n"
        "teacup.webp,a cup of tea,food\ntelevision.png,watching television,screen\n"
        "crow.ogg,a bird,animal\nbell.mp3,a bell ringing,bell\nbeep.wav,an electronic beep,beep\n"
    )
    status, out, _ = run(capsys, "evaluate", "trivium-labels", str(tmp_path / "pairs.csv"), "--json")
    told = json.loads(out)
    assert status == 0
    assert told["gallery"] == {"text": 8, "image": 5, "audio": 3}
    assert told["recall"]["text->image"]["R@1"] == 1
    assert told["recall"]["text->audio"]["R@1"] == 1
    options = ["--modality", "image", "--label", "text", "--json"]
    status, out, _ = run(capsys, "zero-shot", "trivium-labels", str(tmp_path / "pairs.csv"), *options)
    assert status == 0
    assert json.loads(out)["accuracy"] == 1
