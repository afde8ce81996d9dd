"""`trivium features` and `trivium classify` on a table: what they write and refuse; once with the real encoders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from trivium.pipeline.fused.table import read_frame
from trivium.pipeline.tables.reading import TableError

Products = Callable[..., pandas.DataFrame]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tables(products: Products, tmp_path: Path) -> tuple[Path, Path]:
    """A table to train on and one to test on, with a broken picture and some gaps."""
    train, test = products(80, seed=0), products(30, seed=1)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    train.loc[0, "image"] = "broken.png"  # relative to the table
    train.loc[1, "text"] = ""
    train.loc[2, "label"] = ""
    paths = tmp_path / "train.csv", tmp_path / "test.csv"
    train.rename(columns={"text": "title"}).to_csv(paths[0], index=False)
    test.to_csv(paths[1], index=False)
    return paths


@pytest.mark.usefixtures("made_up")
def test_train_predict_and_report(tables: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    train, test = map(str, tables)
    model = str(tmp_path / "model")
    status, out, err = run("classify", "train", train, "--label", "label", "--out", model)
    assert status == 0, err
    assert "1 of 80 rows have no 'label' and are left out" in err
    assert "1 of 79 items of 'image' could not be encoded and count as missing" in err
    assert "trained on 79 rows" in out
    assert "image+text" in out
    status, out, err = run("classify", "predict", model, test, "--out", str(tmp_path / "found.parquet"))
    assert (status, out.startswith("30 predictions in ")) == (0, True), err
    found = pandas.read_parquet(tmp_path / "found.parquet")
    truth = pandas.read_csv(test)["label"]
    assert (found["prediction"] == truth).mean() > 0.8
    chances = found[[f"p({label})" for label in sorted(set(truth))]].to_numpy()
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(chances.max(axis=1), found["probability"])
    status, out, err = run("classify", "report", model, test, "--out", str(tmp_path / "report"))
    assert status == 0, err
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert told["accuracy"] == pytest.approx((found["prediction"] == truth).mean())
    low, high = told["interval"]["macro_f1"]
    assert low <= told["macro_f1"] <= high
    assert np.sum(told["confusion"]["matrix"]) == 30
    for name in ("text", "image"):
        assert told["modalities"][name]["macro_f1_without"] < told["macro_f1"]
        assert told["modalities"][name]["mean_added_to_right_class"] > 0
        assert told["missing"][name][0][1] == pytest.approx(told["macro_f1"])
        assert told["missing"][name][-1][1] == pytest.approx(told["modalities"][name]["macro_f1_without"])
        assert told["noisy"][name][-1][1] < told["macro_f1"]
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert written == {"report.json", "report.md", "confusion.png", "missing.png", "noisy.png"}
    assert "what each modality adds" in out


@pytest.mark.usefixtures("made_up")
def test_numbers(tables: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    frame = pandas.read_csv(tables[1])
    frame["price"] = [10.0 + 20.0 * ("watch" in text) for text in frame["text"]]
    frame.to_csv(tmp_path / "prices.csv", index=False)
    model = str(tmp_path / "model")
    table = str(tmp_path / "prices.csv")
    status, _, err = run("classify", "train", table, "--label", "price", "--regression", "--out", model)
    assert status == 0, err
    status, _, err = run("classify", "predict", model, table, "--out", str(tmp_path / "found.csv"))
    assert status == 0, err
    found = pandas.read_csv(tmp_path / "found.csv")["prediction"]
    assert np.corrcoef(found, frame["price"])[0, 1] > 0.9
    status, out, err = run("classify", "report", model, table, "--out", str(tmp_path / "report"))
    assert status == 0, err
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    truth = frame["price"].to_numpy()
    found = found.to_numpy()
    assert told["r_squared"] == pytest.approx(1 - ((found - truth) ** 2).mean() / truth.var(), abs=1e-4)
    assert told["mean_absolute_error"] == pytest.approx(np.abs(found - truth).mean(), rel=1e-3)
    low, high = told["interval"]["r_squared"]
    assert low <= told["r_squared"] <= high
    text, image = (told["modalities"][name] for name in ("text", "image"))
    assert text["r_squared_without"] < 0.5 < told["r_squared"]  # the picture says nothing of the price
    assert text["mean_moved"] > image["mean_moved"]
    assert told["missing"]["text"][-1][1] == pytest.approx(text["r_squared_without"])
    assert told["noisy"]["text"][0][1] == pytest.approx(told["r_squared"])
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert written == {"report.json", "report.md", "predictions.png", "missing.png", "noisy.png"}
    assert "R² without it" in out
    status, _, err = run("classify", "train", table, "--label", "text", "--regression", "--out", model)
    assert status == 1
    assert "column 'text' holds what is no number" in err


@pytest.mark.usefixtures("made_up")
def test_what_pictures_taught_is_asked_of_texts(tables: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    train, test = map(str, tables)
    model, alone = str(tmp_path / "model"), str(tmp_path / "alone")
    status, out, err = run("classify", "train", train, "--label", "label", "--train-on", "image", "--out", model)
    assert (status, "trained on 79 rows" in out) == (0, True), err
    found = {}
    for modality in ("image", "text"):
        target = tmp_path / f"{modality}.csv"
        status, _, err = run("classify", "predict", model, test, "--apply-to", modality, "--out", str(target))
        assert status == 0, err
        assert "centred on" not in err
        found[modality] = pandas.read_csv(target)
    assert (found["image"]["prediction"] != found["text"]["prediction"]).any()
    status, out, err = run("classify", "report", model, test, "--apply-to", "text", "--json")
    assert status == 0, err
    told = json.loads(out)
    truth = pandas.read_csv(test)["label"]
    assert told["accuracy"] == pytest.approx((found["text"]["prediction"] == truth).mean())
    assert list(told["modalities"]) == ["text"]
    # Texts that the table to train on has not: the asked rows say where they lie, if they are enough.
    arguments = ["classify", "train", train, "--label", "label", "--train-on", "image", "--column", "text="]
    assert run(*arguments, "--out", alone)[0] == 0
    status, _, err = run("classify", "predict", alone, test, "--apply-to", "text", "--out", str(tmp_path / "a.csv"))
    assert (status, "text was not in the table that was trained on: centred on the rows" in err) == (0, True), err
    pandas.read_csv(test)[:5].to_csv(tmp_path / "few.csv", index=False)
    few = str(tmp_path / "few.csv")
    status, _, err = run("classify", "predict", alone, few, "--apply-to", "text", "--out", str(tmp_path / "b.csv"))
    assert status == 1
    assert "5 rows with 'text' do not say where its vectors lie, 30 would: let the table to train on have 'text'" in err
    status, _, err = run("classify", "predict", model, few, "--apply-to", "audio", "--out", str(tmp_path / "b.csv"))
    assert (status, "has no column of audio (--apply-to)" in err) == (1, True)


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("fusion", ["concatenation", "mean", "gated-units"])
def test_features(tables: tuple[Path, Path], tmp_path: Path, run: Run, fusion: str) -> None:
    out = tmp_path / "found" / "features.parquet"
    label = ["--label", "label"] if fusion == "gated-units" else []
    status, told, err = run(
        "features", str(tables[0]), "--out", str(out), "--fusion", fusion, "--json", "--column", "text=title", *label
    )
    assert status == 0, err
    found = pandas.read_parquet(out)
    assert len(found) == 80
    assert json.loads(told) == {"rows": 80, "width": found.shape[1], "fusion": fusion, "out": str(out)}
    assert found.shape[1] == {"concatenation": 15, "mean": 4, "gated-units": 64}[fusion]
    assert "1 of 80 items of 'image' could not be encoded" in err


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["classify", "train", "TRAIN", "--label", "price", "--out", "M"], 1, "has no column 'price' (--label)"),
        (["classify", "train", "TRAIN", "--label", "label", "--out", "M", "--fusion", "best"], 1, "no fusion 'best'"),
        (["classify", "train", "TRAIN", "--label", "label", "--out", "M", "--column", "image=x"], 1, "no column 'x'"),
        (
            ["classify", "train", "TRAIN", "--label", "label", "--out", "M", "--train-on", "image", "--regression"],
            2,
            "--train-on learns classes in a space: it goes with neither --regression nor --fusion",
        ),
        (["classify", "predict", "M", "TEST", "--out", "found.txt"], 2, "the name must end in .csv or .parquet"),
        (["classify", "predict", "M", "TEST", "--out", "found.csv"], 1, "there is no folder M"),
        (["classify", "report", "M", "TEST"], 1, "there is no folder M"),
        (["features", "TRAIN", "--out", "found.csv", "--fusion", "gated-units"], 1, "is trained: fit needs y"),
        (["features", "nothing.csv", "--out", "found.csv"], 1, "nothing.csv"),
    ],
)
def test_what_is_refused(
    tables: tuple[Path, Path],
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"TRAIN": str(tables[0]), "TEST": str(tables[1])}
    found, _, err = run(*(named.get(word, word) for word in arguments))
    assert message in err
    assert found == status
    assert not (tmp_path / "found.csv").exists()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_tables_are_read_alike(tmp_path: Path, suffix: str) -> None:
    frame = pandas.DataFrame(
        {"Caption": ["a dog", None, " "], "path": ["a.jpg", "b/c.wav", "no.xyz"], "kind": ["x", "y", None]}
    )
    path = tmp_path / f"table{suffix}"
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    elif suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path, index=False)
    found: Any = read_frame(path, columns={})
    assert found["text"].isna().tolist() == [False, True, True]
    assert found["image"].tolist()[0] == str(tmp_path / "a.jpg")
    assert found["audio"].tolist()[1] == str(tmp_path / "b" / "c.wav")
    assert found["image"].isna().tolist() == [False, True, True]
    assert found["kind"].tolist()[:2] == ["x", "y"]
    without = read_frame(path, columns={"text": ""})
    assert "text" not in without.columns
    with pytest.raises(TableError, match="has no column 'dog'"):
        read_frame(path, columns={"text": "dog"})


def test_tables_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n")
    with pytest.raises(TableError, match=r"a\.csv has no rows"):
        read_frame(tmp_path / "a.csv", columns={})
    (tmp_path / "b.csv").write_text("name,label\nx,y\n")
    with pytest.raises(TableError, match=r"b\.csv has no column of text, image or audio; its columns: name, label"):
        read_frame(tmp_path / "b.csv", columns={})


@pytest.mark.usefixtures("weights")
def test_with_the_real_encoders(tables: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    train, test = map(str, tables)
    model = str(tmp_path / "model")
    status, _, err = run("classify", "train", train, "--label", "label", "--out", model, "--device", "cpu")
    assert status == 0, err
    status, out, err = run("classify", "report", model, test, "--device", "cpu", "--json")
    assert status == 0, err
    told = json.loads(out)
    assert told["accuracy"] > 0.8
    assert told["modalities"]["text"]["macro_f1_without"] < told["macro_f1"]


def test_class_names_are_no_formulas(tmp_path: Path) -> None:
    """Of a model that may be anybody's; a table is written for its owner alone."""
    from trivium.pipeline.cli import fusing as commands

    frame = pandas.DataFrame({"prediction": ["=cmd()", "a\x1bb"], "probability": [0.5, 0.25], "p(=cmd())": [0.5, 0.75]})
    commands._write(frame, tmp_path / "found.csv")
    assert (
        tmp_path / "found.csv"
    ).read_text() == "prediction,probability,p(=cmd())\n'=cmd(),0.5,0.5\na\\x1bb,0.25,0.75\n"
    assert (tmp_path / "found.csv").stat().st_mode & 0o777 == 0o600
    commands._write(frame, tmp_path / "found.parquet")
    assert list(pandas.read_parquet(tmp_path / "found.parquet")["prediction"]) == ["=cmd()", "a\x1bb"]


def test_broken_text_is_told(tmp_path: Path) -> None:
    """Names of files may be any bytes; texts and labels may not."""
    (tmp_path / "t.csv").write_bytes(b"text,image,label\nred,a\xff.png,x\n")
    assert read_frame(tmp_path / "t.csv", columns={})["image"][0].endswith("a\udcff.png")
    for row in (b"r\xffd,a.png,x", b"red,a.png,\xff"):
        (tmp_path / "t.csv").write_bytes(b"text,image,label\n" + row + b"\n")
        with pytest.raises(TableError, match=r"column '(text|label)' is not UTF-8: save the table as UTF-8"):
            read_frame(tmp_path / "t.csv", columns={})
