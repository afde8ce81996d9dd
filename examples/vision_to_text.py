"""Transfer from vision to text: a classifier that learnt from photos alone judges texts it has no labels for.

    python examples/vision_to_text.py PRODUCTS.csv --label article_type [--test-share 0.25]

The table has a picture and a title in each row, and a column of labels. A part of the rows is kept apart. The titles
and pictures of the others, without labels, bring MiniLM and EfficientNet-Lite0 into one space (`trivium align`); the
labels of their pictures teach a linear classifier. It is then asked for the titles of the rows kept apart.
"""

import argparse
import csv
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas

from trivium.pipeline.cli.main import main as trivium
from trivium.pipeline.fused.transfer import TransferClassifier
from trivium.pipeline.tables.pairs import Row, read_pairs


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Align, learn from pictures, ask for titles; print and return the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("--label", default="label", help="the column with the classes")
    parser.add_argument("--test-share", type=float, default=0.25, help="of the rows, kept apart from all learning")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    found = read_pairs(options.table, columns={"label": options.label})
    rows = [row for row in found.rows if row.text and row.image and row.label]
    order = np.random.default_rng(options.seed).permutation(len(rows))
    count = round(options.test_share * len(rows))
    test, train = [rows[place] for place in order[:count]], [rows[place] for place in order[count:]]
    with tempfile.TemporaryDirectory() as scratch:
        pairs, target = Path(scratch) / "pairs.csv", Path(scratch) / "space"
        write_pairs(pairs, train)
        encoders = "text=minilm-l6,image=efficientnet-lite0"
        if trivium(["align", str(pairs), "--out", str(target), "--encoders", encoders, "--method", "closed-form"]):
            raise SystemExit("the rows could not be aligned")
        labels, truth = [row.label or "" for row in train], [row.label or "" for row in test]
        known, asked = frame_of(train), frame_of(test)[["text"]]
        of_photos = TransferClassifier(space=target, train_on="image").fit(known, labels)
        of_titles = TransferClassifier(space=target, train_on="text").fit(known, labels)
        told = of_photos.score(asked, truth), of_titles.score(asked, truth)
    most = max(set(labels), key=labels.count)
    scores = {
        "learnt from photos, no label of a title": told[0],
        "learnt from titles and their labels": told[1],
        "always the most frequent label": float(np.mean([label == most for label in truth])),
    }
    print(f"\n{len(train):,} products to learn from, {len(test):,} titles asked, {len(set(labels))} labels")
    for name, score in scores.items():
        print(f"{score:7.1%}  {name}")
    return scores


def frame_of(rows: Sequence[Row]) -> pandas.DataFrame:
    """Return the pictures and titles of rows."""
    return pandas.DataFrame({"image": [row.image for row in rows], "text": [row.text for row in rows]})


def write_pairs(path: Path, rows: Sequence[Row]) -> None:
    """Write the pictures and titles of rows, without their labels."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "text"])
        writer.writerows([os.path.abspath(row.image or ""), row.text] for row in rows)


if __name__ == "__main__":
    main()
