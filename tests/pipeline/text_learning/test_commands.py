"""The four commands as a user runs them, with tiny models; those that need MiniLM's weights use them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import trivium
from trivium.encoders.text.own_models import revision_of
from trivium.pipeline.cli.main import main
from trivium.pipeline.space.config import SpaceError, read_space_config
from trivium.pipeline.space.joint import load_space, space_of
from trivium.pipeline.text_learning.classifying import TextClassifier, load_text_classifier
from trivium.pipeline.text_learning.starting import start_from_minilm

Run = Callable[..., tuple[int, str, str]]
Table = Callable[..., Path]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], cache: Path) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def test_the_article_s_example_is_one_command(run: Run, table: Table, tmp_path: Path) -> None:
    train, test, target = table("train.csv", 120), table("test.csv", 40, seed=1), tmp_path / "c"
    arguments = ["train-text", train, "--test", test, "--out", target, "--epochs", 3, "--width", 8]
    status, out, err = run(*arguments)
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0].split() == "epoch train loss validation loss accuracy test loss accuracy seconds".split()
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "3"]
    assert str(target) in lines[-1]
    assert load_text_classifier(target).labels == ["no", "yes"]
    assert run(*arguments, "--json")[0] == 0  # what is there is replaced


def test_a_text_classifier_is_used(run: Run, table: Table, tmp_path: Path) -> None:
    train, asked, model = table("train.csv", 120), tmp_path / "asked.csv", tmp_path / "c"
    arguments = ["train-text", train, "--out", model, "--epochs", 5, "--width", 8, "--optimiser", "adamw"]
    assert run(*arguments, "--learning-rate", 0.02)[0] == 0
    texts = table("more.csv", 20, seed=1).read_text().splitlines()
    asked.write_text("\n".join([*texts, ",no"]) + "\n")
    status, out, err = run("classify", "predict", model, asked, "--out", tmp_path / "found.csv", "--json")
    assert status == 0, err
    assert json.loads(out)["rows"] == 21
    assert "1 of 21 rows have no text" in err
    with (tmp_path / "found.csv").open() as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["prediction", "probability", "p(no)", "p(yes)"]
    with asked.open() as file:
        given = list(csv.DictReader(file))
    classifier = trivium.load_classifier(model)
    assert isinstance(classifier, TextClassifier)
    assert [row["prediction"] for row in found] == classifier.predict([row["text"] for row in given])
    right = sum(row["prediction"] == of["label"] for row, of in zip(found, given[:20], strict=False))
    assert right >= 16
    for options, told in (
        (("predict", model, asked, "--out", tmp_path / "f.csv", "--precision", "int8"), "was trained in float32"),
        (("report", model, asked), "whose --test measures it"),
    ):
        status, _, err = run("classify", *options)
        assert (status, told in err) == (2, True), err
    (tmp_path / "pictures.csv").write_text("image\na.png\n")
    status, _, err = run("classify", "predict", model, tmp_path / "pictures.csv", "--out", tmp_path / "f.csv")
    assert (status, "has no column of text" in err) == (1, True)
    (model / "classifier.json").write_text("{}")
    status, _, err = run("classify", "predict", model, asked, "--out", tmp_path / "f.csv")
    assert (status, "format" in err) == (1, True)


def test_word_vectors_from_a_file_are_what_the_lstm_begins_with(run: Run, table: Table, tmp_path: Path) -> None:
    train = table("train.csv", 120)
    random = np.random.default_rng(0)
    lines = [
        f"{word} {' '.join(f'{n:.3f}' for n in random.normal(size=5))}" for word in ("good", "bad", "the", "unused")
    ]
    (tmp_path / "v.txt").write_text("\n".join(lines) + "\n")
    arguments = ["train-text", train, "--out", tmp_path / "c", "--vectors", tmp_path / "v.txt", "--epochs", 1]
    status, out, err = run(*arguments, "--width", 4, "--json")
    assert status == 0, err
    assert "3 of 17 words have a vector" in err
    assert json.loads(out)["vectors"] == str(tmp_path / "v.txt")
    assert load_text_classifier(tmp_path / "c").config.shape.embedding == 5
    assert run(*arguments, "--model", "transformer")[0] == 2


def test_pretraining_and_then_fine_tuning(run: Run, table: Table, model_folder: Path, tmp_path: Path) -> None:
    train, target = table("train.csv", 120), tmp_path / "pretrained"
    options = ["--epochs", 2, "--window", 12, "--batch", 16, "--learning-rate", "0.003"]
    status, out, err = run("pretrain-text", train, "--model", model_folder, "--out", target, *options)
    assert status == 0, err
    assert "loss of a hidden token, held out" in out
    assert revision_of(target) != revision_of(model_folder)
    assert not (tmp_path / "pretrained.checkpoint").exists()
    tuned = [
        "train-text",
        train,
        "--model",
        target,
        "--out",
        tmp_path / "c",
        "--epochs",
        2,
        "--max-tokens",
        16,
        "--json",
    ]
    status, out, err = run(*tuned, "--validation", 0)
    assert status == 0, err
    told = json.loads(out)
    assert told["recipe"]["optimiser"] == "adamw"
    assert told["epochs"][1]["validation_loss"] is None
    assert told["texts"] == 120


def test_a_stopped_pretraining_is_told_of(
    run: Run, table: Table, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trivium.pipeline.text_learning.pretraining import Pretrainer

    train, target = table("train.csv", 60), tmp_path / "p"
    arguments = ["pretrain-text", train, "--model", model_folder, "--out", target, "--epochs", 2, "--window", 12]
    real = Pretrainer.held_out_loss
    calls = []

    def stopped(self: Pretrainer) -> float:
        calls.append(1)
        if len(calls) == 3:  # the first epoch is kept, the second is not
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Pretrainer, "held_out_loss", stopped)
    assert run(*arguments)[0] == 130
    assert (tmp_path / "p.checkpoint" / "checkpoint.json").exists()
    status, _, err = run(*arguments, "--learning-rate", "0.01")
    assert status == 1
    assert "holds a run with another recipe" in " ".join(err.split())
    assert run(*arguments)[0] == 0
    assert target.is_dir()


def test_usage(run: Run, table: Table, model_folder: Path, tmp_path: Path) -> None:
    train, out = table("train.csv", 30), tmp_path / "out"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").write_text("")
    (tmp_path / "one.csv").write_text("text,label\ngood,1\nfine,1\n")
    (tmp_path / "v.txt").write_text("alone\n")
    for arguments, message in (
        (["train-text", train, "--out", tmp_path / "other"], "exists and is no text model"),
        (["train-text", tmp_path / "one.csv", "--out", out, "--validation", 0], "at least two labels, got 1"),
        (["train-text", train, "--out", out, "--model", tmp_path / "other"], "holds no text model"),
        (["train-text", train, "--out", out, "--test", tmp_path / "one.csv"], "labels that nothing is learnt of: 1"),
        (["train-text", train, "--out", out, "--vectors", tmp_path / "v.txt"], "v.txt, line 1: needs a word"),
        (["train-text", train, "--out", out, "--model", model_folder, "--max-tokens", 99], "has 16 positions"),
        (["pretrain-text", train, "--out", out, "--model", model_folder, "--window", 99], "must have 3 to 16 tokens"),
        (["pretrain-text", tmp_path / "other", "--out", out, "--model", model_folder], "no texts in"),
        (["distill", train, "--out", out, "--space", "trivium-labels"], "needs its own text encoder"),
    ):
        status, _, err = run(*arguments)
        assert status in (1, 2)
        assert message in " ".join(err.split())
        assert not out.exists()


def own_space(folder: Path, model: Path) -> Path:
    folder.mkdir()
    model.rename(folder / "own")
    backbone = {
        "backbone": "text-model:own",
        "revision": revision_of(folder / "own"),
        "projection": {"kind": "identity"},
    }
    (folder / "space.json").write_text(
        json.dumps({"format": 1, "name": "own", "dim": 16, "encoders": {"text": backbone}})
    )
    return folder


def test_a_folder_s_model_is_a_space_s_text_encoder(model_folder: Path, tmp_path: Path, cache: Path) -> None:
    folder = own_space(tmp_path / "space", model_folder)
    space = load_space(folder)
    found = space.encode("text", ["the film was good", "a dull plot"])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert space.weights() == []
    moved = folder.rename(tmp_path / "moved")  # nothing in it says where it was
    np.testing.assert_array_equal(load_space(moved).encode("text", ["the film was good", "a dull plot"]), found)
    assert load_space(moved).space == space.space
    named = space_of(
        {"text": read_space_config(moved).encoders["text"]}, name="again", dim=16
    )  # as `trivium align --encoders text=text-model:FOLDER`
    np.testing.assert_array_equal(named.encode("text", ["the film was good", "a dull plot"]), found)
    tokenizer = moved / "own" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("film", "movie"))
    with pytest.raises(SpaceError, match="make the space again"):
        load_space(moved).encode("text", ["the film"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "text-model:../own"}, "no folder '../own' with a text model in the space's folder"),
        ({"backbone": "text-model:lost"}, "no folder 'lost'"),
        ({"revision": None}, "needs its revision"),
    ],
)
def test_bad_entries_are_told(model_folder: Path, tmp_path: Path, change: dict[str, object], message: str) -> None:
    folder = own_space(tmp_path / "space", model_folder)
    config = json.loads((folder / "space.json").read_text())
    config["encoders"]["text"] |= change
    (folder / "space.json").write_text(json.dumps(config))
    with pytest.raises(SpaceError, match=message):
        read_space_config(folder)


@pytest.mark.weights
@pytest.mark.parametrize("student", ["transformer", "lstm"])
def test_a_student_is_taught(
    weights: dict[str, Path],
    student: str,
    run: Run,
    table: Table,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRIVIUM_CACHE")  # the weights are in the real one
    space, train, target = own_space(tmp_path / "space", model_folder), table("train.csv", 80), tmp_path / "small"
    options = ["--student", student, "--width", 32, "--layers", 1, "--epochs", 4, "--parts", 20, "--batch", 8]
    status, out, err = run("distill", train, "--space", space, "--out", target, *options, "--json")
    assert status == 0, err
    told = json.loads(out)
    assert told["held_out_cosines"][-1] > told["held_out_cosines"][0]
    small = load_space(target)
    assert small.space.dim == 16
    assert small.config_of("text").backbone == f"text-model:{target / 'student'}"
    texts = ["the film was good", "a dull plot"]
    cosines = (small.encode("text", texts) * load_space(space).encode("text", texts)).sum(axis=1)
    assert cosines.mean() > 0.5


@pytest.mark.weights
def test_word_vectors_are_written(
    weights: dict[str, Path], run: Run, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRIVIUM_CACHE")
    status, out, err = run("word-vectors", table("train.csv", 40), "--out", tmp_path / "v.txt")
    assert status == 0, err
    assert "17 words with 384 numbers each" in out
    assert len((tmp_path / "v.txt").read_text().splitlines()) == 17
    arguments = ["train-text", tmp_path / "train.csv", "--out", tmp_path / "c", "--vectors", tmp_path / "v.txt"]
    assert run(*arguments, "--epochs", 1, "--width", 4)[0] == 0


@pytest.mark.weights
def test_minilm_is_where_one_may_start(weights: dict[str, Path]) -> None:
    start = start_from_minilm(max_tokens=64)
    assert start.config.max_tokens == 64
    with pytest.raises(ValueError, match="has 512 positions, texts cannot be cut at 513"):
        start_from_minilm(max_tokens=513)
