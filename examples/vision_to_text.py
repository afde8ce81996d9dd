"""Transfer from vision to text: a classifier that learnt from photos alone judges texts it has no labels for.

    python examples/vision_to_text.py PRODUCTS.csv --label article_type [--test-share 0.25]

The table has a picture and a title in each row, and a column of labels. A part of the rows is kept apart. The titles
and pictures of the others, without labels, bring MiniLM and EfficientNet-Lite0 into one space (`trivium align`); the
labels of their pictures teach a linear classifier. It is then asked for the titles of the rows kept apart.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import trivium
from trivium.fusion import TransferClassifier, read_frame


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Align, learn from pictures, ask for titles; print and return the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("--label", default="label", help="the column with the classes")
    parser.add_argument("--test-share", type=float, default=0.25, help="of the rows, kept apart from all learning")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    frame = read_frame(options.table).dropna(subset=["text", "image", options.label])
    frame = frame.iloc[np.random.default_rng(options.seed).permutation(len(frame))]
    count = round(options.test_share * len(frame))
    test, train = frame[:count], frame[count:]
    with tempfile.TemporaryDirectory() as scratch:
        pairs, target = Path(scratch) / "pairs.csv", Path(scratch) / "space"
        train[["image", "text"]].to_csv(pairs, index=False)  # without their labels
        encoders = "text=minilm-l6,image=efficientnet-lite0"
        if trivium.main(["align", str(pairs), "--out", str(target), "--encoders", encoders, "--method", "closed-form"]):
            raise SystemExit("the rows could not be aligned")
        known, asked = train[["image", "text"]], test[["text"]]
        labels, truth = train[options.label].astype(str), test[options.label].astype(str)
        of_photos = TransferClassifier(space=target, train_on="image").fit(known, labels)
        of_titles = TransferClassifier(space=target, train_on="text").fit(known, labels)
        told = of_photos.score(asked, truth), of_titles.score(asked, truth)
    scores = {
        "learnt from photos, no label of a title": told[0],
        "learnt from titles and their labels": told[1],
        "always the most frequent label": float((truth == labels.mode()[0]).mean()),
    }
    print(f"\n{len(train):,} products to learn from, {len(test):,} titles asked, {labels.nunique()} labels")
    for name, score in scores.items():
        print(f"{score:7.1%}  {name}")
    return scores


if __name__ == "__main__":
    main()
