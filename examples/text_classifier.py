"""The article's text classifier against ours: an LSTM from nothing, one over word vectors, and MiniLM fine-tuned.

    python examples/text_classifier.py TRAIN.csv TEST.csv [--epochs N] [--texts N] [--tuned-epochs N]

Both tables have columns text and label (IMDB's reviews, say). The article's classifier is an embedding, an LSTM and a
linear layer, trained with binary cross-entropy and SGD. The second one begins with MiniLM's token embeddings as its
word vectors; the third is the whole of MiniLM, fine-tuned in the same loop.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

from trivium.encoders.text.words import frequent_words, minilm_word_vectors
from trivium.pipeline.text_learning.classifying import (
    ClassifierRecipe,
    EpochReport,
    LabelledTexts,
    new_classifier,
    train_classifier,
)
from trivium.pipeline.text_learning.corpus import read_labelled
from trivium.pipeline.text_learning.starting import Start, start_from_minilm, start_lstm, take_word_vectors

LSTM_RECIPE = ClassifierRecipe(
    batch_texts=32, optimiser="sgd", learning_rate=0.3, linear_factor=1.0, weight_decay=0.0, dropout=0.3
)


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train the three classifiers, print how good each one is, and return that."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--texts", type=int, help="use only the first N of each table")
    parser.add_argument("--epochs", type=int, default=6, help="of the LSTMs")
    parser.add_argument("--tuned-epochs", type=int, default=2, help="of fine-tuning")
    options = parser.parse_args(arguments)
    train, test = (
        first(read_labelled(path, columns={}, where={}), options.texts) for path in (options.train, options.test)
    )
    words = frequent_words(train.texts, most=25_000, least_often=2)
    with_vectors = start_lstm(words, embedding=384, width=128, dropout=LSTM_RECIPE.dropout)
    take_word_vectors(with_vectors, ({word: row for row, word in enumerate(words)}, minilm_word_vectors(words)))
    lstm_recipe = replace(LSTM_RECIPE, epochs=options.epochs)
    rows = {
        "LSTM, random word vectors": (start_lstm(words, embedding=100, width=128, dropout=0.3), lstm_recipe),
        "LSTM, MiniLM's token embeddings": (with_vectors, lstm_recipe),
        "MiniLM, fine-tuned": (start_from_minilm(dropout=0.1), ClassifierRecipe(epochs=options.tuned_epochs)),
    }
    return {name: trained(name, start, recipe, train, test) for name, (start, recipe) in rows.items()}


def trained(name: str, start: Start, recipe: ClassifierRecipe, train: LabelledTexts, test: LabelledTexts) -> float:
    """Train a classifier, tell the test loss of each epoch, and return the accuracy after the last one."""
    print(f"\n{name}\n{'epoch':>6} {'train loss':>11} {'test loss':>10} {'accuracy':>9}")

    def tell(report: EpochReport) -> None:
        print(f"{report.epoch:>6} {report.train_loss:>11.4f} {report.test_loss:>10.4f} {report.test_accuracy:>9.1%}")

    labels = sorted(set(train.labels))
    classifier = new_classifier(
        start.network, config=start.config, tokenizer=start.tokenizer, labels=labels, recipe=recipe
    )
    started = time.perf_counter()
    told = train_classifier(classifier, train, recipe, test=test, tell=tell)
    print(f"{time.perf_counter() - started:.0f} s")
    return told.epochs[-1].test_accuracy or 0.0


def first(given: LabelledTexts, count: int | None) -> LabelledTexts:
    """Return the first texts, or all of them."""
    return LabelledTexts(given.texts[:count], given.labels[:count])


if __name__ == "__main__":
    main()
