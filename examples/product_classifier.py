"""Classify products by title and photo: what each knows alone, what both know, and why one was classified so.

    python examples/product_classifier.py products.csv --label gender

The table has a column `title` (or text), a column `path` (or image), and the label; a quarter is kept for the test.
Needs `pip install 'trivium[learn]'`.
"""

import argparse

from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split

from trivium.fusion import FusedClassifier, read_frame


def main() -> None:
    """Train on three quarters, tell what was seen on the last."""
    parser = argparse.ArgumentParser(description="Classify products by title and photo.")
    parser.add_argument("table")
    parser.add_argument("--label", required=True)
    options = parser.parse_args()
    frame = read_frame(options.table)
    frame = frame[frame[options.label].notna()]
    train, test = train_test_split(frame, test_size=0.25, random_state=0)

    for columns in (["text"], ["image"], ["text", "image"]):
        classifier = FusedClassifier().fit(train[columns], train[options.label])
        found = classifier.predict(test[columns])
        score = f1_score(test[options.label], found, average="macro", zero_division=0)
        print(f"{' and '.join(columns):15} macro-F1 {100 * score:.1f}")

    # The last one knows both: what did each add to the class that it chose for the first product?
    first = test.head(1)
    chosen = classifier.predict_proba(first)[0].argmax()
    print(f"\n'{first['text'].iloc[0]}' is {classifier.classes_[chosen]}")
    for name, added in classifier.contributions(first).items():
        print(f"  {name} added {added[0, chosen]:+.2f} to its probability")


if __name__ == "__main__":
    main()
