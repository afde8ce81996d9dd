"""Text classifiers: the article's LSTM and a Transformer learn, are kept at their best, saved and loaded."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas
import pytest
import torch

from trivium.encoders.text.own_models import TextModelError, load_text_model
from trivium.encoders.text.words import frequent_words
from trivium.pipeline.fused.loading import load_classifier
from trivium.pipeline.text_learning import steps
from trivium.pipeline.text_learning.classifying import (
    ClassifierRecipe,
    LabelledTexts,
    TextClassifier,
    load_text_classifier,
    loss_of,
    new_classifier,
    probabilities,
    train_classifier,
)
from trivium.pipeline.text_learning.starting import Start, start_lstm

RECIPE = ClassifierRecipe(
    epochs=6, batch_texts=8, max_tokens=16, head_tokens=4, learning_rate=5e-3, layer_decay=1.0, linear_factor=1.0
)
Texts = Callable[..., LabelledTexts]


def classifier_of(
    start: Start, recipe: ClassifierRecipe = RECIPE, labels: tuple[str, ...] = ("no", "yes")
) -> TextClassifier:
    return new_classifier(start.network, config=start.config, tokenizer=start.tokenizer, labels=labels, recipe=recipe)


def lstm(texts: LabelledTexts) -> Start:
    return start_lstm(frequent_words(texts.texts, most=50, least_often=1), embedding=12, width=16, max_tokens=16)


def test_the_article_s_lstm_learns(labelled: Texts) -> None:
    train, test = labelled(160), labelled(60, seed=1)
    recipe = replace(RECIPE, epochs=12, batch_texts=4, optimiser="sgd", learning_rate=0.1, dropout=0.0)
    classifier = classifier_of(lstm(train), recipe)
    assert classifier.linear.out_features == 1
    told = train_classifier(classifier, train, recipe, test=test)
    assert told.epochs[-1].test_accuracy is not None
    assert told.epochs[-1].test_accuracy > 0.9
    assert told.epochs[-1].train_loss < 0.3 < told.epochs[0].train_loss
    assert told.kept_epoch == 12  # nothing was held out: the last one


def test_rounded_lengths_change_no_logits(start: Start, labelled: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    for classifier in (classifier_of(start), classifier_of(lstm(labelled(160)))):
        ids = classifier.prepare(labelled(20).texts)
        rounded = classifier.scores(ids, batch_texts=5)
        with monkeypatch.context() as patch:
            patch.setattr(steps, "TOKENS_ALIKE", 1)
            np.testing.assert_allclose(classifier.scores(ids, batch_texts=5), rounded, atol=5e-3)


def test_a_transformer_learns_and_is_saved(start: Start, labelled: Texts, tmp_path: Path, cache: Path) -> None:
    train, validation = labelled(160), labelled(60, seed=1)
    classifier = classifier_of(start)
    told = train_classifier(classifier, train, RECIPE, validation=validation)
    losses = [report.validation_loss for report in told.epochs]
    assert losses[told.kept_epoch - 1] == min(loss for loss in losses if loss is not None)
    accuracy = np.mean([a == b for a, b in zip(classifier.predict(validation.texts), validation.labels, strict=True)])
    assert accuracy == told.epochs[told.kept_epoch - 1].validation_accuracy
    assert accuracy > 0.9
    classifier.save(tmp_path / "c")
    loaded = load_text_classifier(tmp_path / "c")
    np.testing.assert_allclose(
        loaded.predict_proba(validation.texts), classifier.predict_proba(validation.texts), atol=1e-6
    )
    encoder = load_text_model(tmp_path / "c")  # the same folder is a text encoder too
    rows = encoder.features(encoder.prepare_all(validation.texts)).pooled
    with torch.inference_mode():
        logits = loaded.linear(torch.from_numpy(rows)).numpy()
    agree = (probabilities(logits).argmax(axis=1) == loaded.predict_proba(validation.texts).argmax(axis=1)).mean()
    assert agree > 0.97


def test_the_worst_of_the_last_epochs_is_not_kept(start: Start, labelled: Texts) -> None:
    train = labelled(40)
    flipped = LabelledTexts(train.texts, [{"no": "yes", "yes": "no"}[label] for label in train.labels])
    told = train_classifier(classifier_of(start), train, RECIPE, validation=flipped)
    assert told.kept_epoch < 6  # the better it learns, the worse it is on what is turned round


def test_three_labels_have_three_outputs(start: Start, labelled: Texts) -> None:
    given = labelled(60)
    three = LabelledTexts(
        given.texts, ["long" if len(t.split()) > 8 else y for t, y in zip(given.texts, given.labels, strict=True)]
    )
    classifier = classifier_of(start, labels=("long", "no", "yes"))
    before = float(np.mean([a == b for a, b in zip(classifier.predict(three.texts), three.labels, strict=True)]))
    told = train_classifier(classifier, three, replace(RECIPE, epochs=10), test=three)
    assert classifier.predict_proba(three.texts).shape == (60, 3)
    assert (told.epochs[-1].test_accuracy or 0) > max(0.7, before)


def test_losses_and_probabilities_agree() -> None:
    logits = torch.tensor([[0.5], [-2.0], [3.0]])
    truth = torch.tensor([1, 0, 0])
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(loss_of(logits, truth), loss_of(both, truth))
    np.testing.assert_allclose(probabilities(logits.numpy())[:, 1], torch.sigmoid(logits[:, 0]), rtol=1e-6)
    np.testing.assert_allclose(probabilities(both.numpy()), probabilities(logits.numpy()), rtol=1e-6)


def test_the_same_seed_the_same_classifier(new_start: Callable[..., Start], labelled: Texts) -> None:
    found = []
    for _ in range(2):
        classifier = classifier_of(new_start())
        train_classifier(classifier, labelled(40), replace(RECIPE, epochs=2))
        found.append(classifier.predict_proba(["the film was good"]))
    np.testing.assert_array_equal(found[0], found[1])


def test_what_is_refused(start: Start, labelled: Texts, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least two labels, got no"):
        classifier_of(start, labels=("no",))
    given = labelled(20)
    odd = LabelledTexts(given.texts, ["perhaps"] * 20)
    with pytest.raises(ValueError, match="labels that training has not: perhaps"):
        train_classifier(classifier_of(start), given, RECIPE, test=odd)
    classifier_of(start).save(tmp_path / "c")
    told = json.loads((tmp_path / "c" / "classifier.json").read_text())
    (tmp_path / "c" / "classifier.json").write_text(json.dumps(told | {"format": 2}))
    with pytest.raises(TextModelError, match="has format 2, 1 is read"):
        load_text_classifier(tmp_path / "c")
    for labels in (["a", "a"], ["\ud800", "x"]):
        (tmp_path / "c" / "classifier.json").write_text(json.dumps(told | {"labels": labels}))
        with pytest.raises(TextModelError, match="labels are not all different texts"):
            load_text_classifier(tmp_path / "c")
    (tmp_path / "c" / "classifier.json").write_text(json.dumps(told | {"format": True}))
    with pytest.raises(TextModelError, match="has format"):
        load_text_classifier(tmp_path / "c")
    (tmp_path / "c" / "classifier.json").unlink()
    with pytest.raises(TextModelError, match="holds no classifier"):
        load_classifier(tmp_path / "c")  # and not that it is a fused one of another format


def test_weights_that_are_no_numbers_are_refused(start: Start, tmp_path: Path) -> None:
    classifier_of(start).save(tmp_path / "c")
    path = tmp_path / "c" / "classifier.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-4] + np.float32(np.nan).tobytes())
    with pytest.raises(TextModelError, match=r"classifier\.safetensors holds NaN or infinity"):
        load_text_classifier(tmp_path / "c")


def test_what_is_predicted_of(start: Start) -> None:
    classifier = classifier_of(start)
    one, other = classifier.predict_proba(["good"]), classifier.predict_proba(["bad"])
    np.testing.assert_array_equal(
        classifier.predict_proba(pandas.DataFrame({"text": ["good", "bad"], "stars": [5, 1]})),
        np.concatenate([one, other]),
    )
    for given, told in (
        ("good film", "one text was given: put it into a list"),
        (["good", None], "row 1 is no text, but NoneType"),
        (pandas.DataFrame({"words": ["good"]}), "a table needs a column 'text', this one has words"),
    ):
        with pytest.raises(TypeError, match=told):
            classifier.predict(cast(Any, given))
