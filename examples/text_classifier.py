"""The article's text classifier against ours: an LSTM from nothing, one over word vectors, and MiniLM fine-tuned.

    python examples/text_classifier.py TRAIN.csv TEST.csv [--epochs N] [--tuned-epochs N]

Both tables have columns text and label (IMDB's reviews, say). The article's classifier is an embedding, an LSTM and a
linear layer, trained with binary cross-entropy and SGD. The second one begins with MiniLM's token embeddings as its
word vectors; the third is the whole of MiniLM, fine-tuned in the same loop.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trivium


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train the three classifiers, print how good each one is, and return that."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--epochs", type=int, default=6, help="of the LSTMs")
    parser.add_argument("--tuned-epochs", type=int, default=2, help="of fine-tuning")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        vectors, target = Path(scratch) / "vectors.txt", Path(scratch) / "classifier"
        run("word-vectors", options.train, "--out", vectors)
        lstm, tuned = ("--epochs", options.epochs), ("--model", "minilm", "--epochs", options.tuned_epochs)
        rows = {
            "LSTM, random word vectors": lstm,
            "LSTM, MiniLM's token embeddings": (*lstm, "--vectors", vectors),
            "MiniLM, fine-tuned": tuned,
        }
        accuracies = {}
        for name, more in rows.items():
            print(f"\n{name}")
            run("train-text", options.train, "--test", options.test, "--out", target, "--validation", 0, *more)
            # Beside its network, a classifier's folder holds how it was trained; `trivium.load_classifier` opens it.
            record = json.loads((target / "training.json").read_text(encoding="utf-8"))
            accuracies[name] = float(record["epochs"][-1]["test_accuracy"])
    return accuracies


def run(*words: object) -> None:
    """Run a command of Trivium."""
    if status := trivium.main([str(word) for word in words]):
        raise SystemExit(status)


if __name__ == "__main__":
    main()
