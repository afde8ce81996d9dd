"""What text encoders learn: IMDB (6,000 / 4,000) by classifiers of all kinds, students of a teacher, and transfer.

    python benchmarks/text_learning.py [PART ...] [--work FOLDER]

Parts: lstm, features, finetuned, imagination, transfer, few-labels, student (all without any). Models go to FOLDER
(default text-learning-output) and stay there; a pre-training that was stopped goes on. Needs TRIVIUM_DATA (default
../shared/data). Fine-tuning and pre-training take about half an hour each on one core.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from machine import describe
from text_learning_crossing import PRECISIONS, few_labels, imagination, student, transfer
from text_learning_data import DATA, IMDB, Labelled, accuracy_cell, labelled, regression, told

from trivium.encoders.networks.contract import Precision
from trivium.pipeline.features.frames import blocks_of, encode_frame, space_named, table_of, views_of
from trivium.pipeline.space.joint import DEFAULT_SPACE

RIDGES = (10.0, 100.0, 1000.0, 10000.0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--work", type=Path, default=Path("text-learning-output"))
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is missing: set TRIVIUM_DATA")
    options.work.mkdir(exist_ok=True)
    print(describe(), "\n", flush=True)
    for part in options.parts or PARTS:
        print(f"## {part}\n", flush=True)
        PARTS[part](options.work)
        print(flush=True)


def lstm(work: Path) -> None:
    """Train the article's LSTM, over random word vectors and over MiniLM's token embeddings."""
    vectors = work / "vectors.txt"
    subprocess.run(
        [sys.executable, "-P", "-m", "trivium", "word-vectors", str(IMDB["train"]), "--out", str(vectors)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    heading("LSTM (128, SGD), word vectors")
    for name, options in (
        ("random, 100 numbers", []),
        ("MiniLM's token embeddings", ["--vectors", str(vectors)]),
    ):
        trained(work / f"lstm-{name.split()[0].strip(',')}", name, ["--model", "lstm", *options])


def features(work: Path) -> None:
    """MiniLM's features as they are, float32 and int8, with and without inner layers, and logistic regression."""
    del work
    heading("features and logistic regression")
    train, test = labelled("train"), labelled("test")
    for precision in PRECISIONS:
        tables = [minilm(of, precision) for of in (train, test)]
        for name, width in (("", 384), (", inner layers too", None)):
            rows = [table[:, :width] for table in tables]
            fitted = regression(RIDGES).fit(rows[0], train.labels)
            right = np.array([a == b for a, b in zip(fitted.predict(rows[1]), test.labels, strict=True)])
            ridge = 1 / fitted.best_params_["logisticregression__C"]
            print(f"| MiniLM, {precision}{name} (ridge {ridge:g}) | {accuracy_cell(right)} | | |", flush=True)


def minilm(of: Labelled, precision: Precision) -> np.ndarray:
    """Return pooled features, 384 numbers, and inner layers behind them."""
    found = encode_frame(pandas.DataFrame({"text": of.texts}), space_named(DEFAULT_SPACE, "cpu", precision), ["text"])
    return table_of(found, blocks_of(views_of(found)))


def finetuned(work: Path) -> None:
    """MiniLM fine-tuned as it is; and after masked pre-training on the training texts, without their labels."""
    heading("fine-tuned, 2 epochs, 256 tokens (the first 64 and the last 192)")
    target = work / "pretrained"
    if not target.is_dir():
        made = told(
            "pretrain-text", str(IMDB["train"]), "--out", str(target), "--epochs", "1", "--learning-rate", "2e-4"
        )
        losses = made["held_out_losses"]
        print(f"pre-training: {made['seconds']:,.0f} s, loss of a hidden token {losses[0]:.2f} to {losses[-1]:.2f}\n")
    for name, model in (("MiniLM", "minilm"), ("MiniLM after masked pre-training", str(target))):
        trained(work / f"tuned-{Path(model).name}", name, ["--model", model, "--validation", "0"])


def trained(target: Path, name: str, options: list[str]) -> None:
    """Run `trivium train-text`, unless its classifier is there, and print a row."""
    if not target.is_dir():
        told("train-text", str(IMDB["train"]), "--test", str(IMDB["test"]), "--out", str(target), *options)
    record: dict[str, Any] = json.loads((target / "training.json").read_text())
    kept = record["epochs"][record["kept_epoch"] - 1]
    right = np.zeros(len(labelled("test").texts), np.bool_)
    right[: round(kept["test_accuracy"] * len(right))] = True
    cells = [accuracy_cell(right), f"{record['kept_epoch']} of {len(record['epochs'])}", f"{kept['seconds']:,.0f}"]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def heading(what: str) -> None:
    print(f"| {what} | accuracy on 4,000 (95 %) | epoch kept | s until then |\n|---|---|---|---|", flush=True)


PARTS: Mapping[str, Callable[[Path], None]] = {
    "lstm": lstm,
    "features": features,
    "finetuned": finetuned,
    "imagination": imagination,
    "transfer": transfer,
    "few-labels": few_labels,
    "student": student,
}

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
