"""Text classifiers: an encoder of our own and a linear layer, trained together on texts with labels.

The article's example is the smallest of them: embedding, LSTM, linear layer, binary cross-entropy with logits, SGD, and
the test loss after each epoch. A Transformer, pre-trained or not, takes the LSTM's place in the same loop: fine-tuning.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trivium.encoders.files.foreign import read_foreign_json, shown
from trivium.encoders.files.tensors import open_tensors
from trivium.encoders.text.own_models import (
    CLASSIFIER_FILE,
    CLASSIFIER_WEIGHTS,
    MAX_WEIGHTS_BYTES,
    MOST,
    TextModelConfig,
    TextModelError,
    load_text_network,
    read_text_model,
    read_tokenizer,
    save_text_model,
)
from trivium.pipeline.progress import Progress
from trivium.pipeline.text_learning.steps import (
    OptimisedSteps,
    Optimiser,
    TokenIds,
    as_tensors,
    batches_in_order,
    cut,
    half_precision,
    layer_rates,
    learn_epochs,
    tokenize,
    uncut,
)

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierRecipe:
    """How a text classifier is trained. The defaults are those of fine-tuning a Transformer."""

    epochs: int = 2
    batch_texts: int = 16
    max_tokens: int = 256
    head_tokens: int | None = 64  # of a longer text the first ones stay, and the last ones; None: only the first
    optimiser: Optimiser = "adamw"
    learning_rate: float = 1e-4
    layer_decay: float = 0.85  # each lower layer learns so much more slowly
    linear_factor: float = 5.0  # the linear layer begins at random, and learns so much faster
    weight_decay: float = 0.01
    dropout: float = 0.1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LabelledTexts:
    """Texts and their labels."""

    texts: Sequence[str]
    labels: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """What one epoch gave; None where nothing was held out, or there is no test."""

    epoch: int  # from 1
    train_loss: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class ClassifierTraining:
    """What training gave."""

    epochs: list[EpochReport] = field(default_factory=list)
    kept_epoch: int = 0  # the one with the lowest validation loss; the last one where nothing is held out


class TextClassifier:
    """An encoder, a linear layer, and what their outputs are called."""

    def __init__(
        self,
        encoder: nn.Module,
        linear: nn.Linear,
        *,
        config: TextModelConfig,
        tokenizer: str,
        labels: Sequence[str],
        head_tokens: int | None,
    ) -> None:
        """Put the parts together.

        Args:
            encoder: Takes ids and a mask, gives vectors.
            linear: One output for two labels, else one for each.
            config: Of the encoder.
            tokenizer: The JSON of its tokenizer.
            labels: Of the outputs; at least two.
            head_tokens: See `ClassifierRecipe`.
        """
        self.encoder, self.linear = encoder, linear
        self.config, self.tokenizer, self.labels = config, tokenizer, list(labels)
        self._head_tokens = head_tokens
        self._tokens = uncut(tokenizer)

    def to(self, device: str) -> None:
        """Move it to a device, as torch names it."""
        self.encoder.to(device)
        self.linear.to(device)

    def prepare(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the ids of texts, cut.

        Raises:
            TypeError: If it is one text and no sequence of them, or one of them is no text.
        """
        texts = texts_of(texts)
        most = self.config.max_tokens
        return [cut(ids, most=most, head=self._head_tokens) for ids in tokenize(self._tokens, texts)]

    def logits(self, batch: Sequence[TokenIds], device: torch.device) -> Tensor:
        """Return what the linear layer says, shape (n, 1) or (n, labels)."""
        (vectors,) = self.encoder(*as_tensors(batch, device, most=self.config.max_tokens))
        scores: Tensor = self.linear(vectors)
        return scores.float()

    def predict_proba(self, texts: Sequence[str], *, batch_texts: int = 64) -> NDArray[np.float32]:
        """Return each label's probability, shape (n, labels).

        Args:
            texts: A sequence of texts, or a DataFrame with a column `text`.
            batch_texts: So many at a time.

        Raises:
            TypeError: If it is none of these, or a row is no text.
        """
        return probabilities(self.scores(self.prepare(texts), batch_texts=batch_texts))

    def predict(self, texts: Sequence[str]) -> list[str]:
        """Return the most probable label of each text."""
        return [self.labels[place] for place in self.predict_proba(texts).argmax(axis=1)]

    def scores(self, ids: Sequence[TokenIds], *, batch_texts: int = 64) -> NDArray[np.float32]:
        """Return the logits of prepared texts, in float32, shape (n, 1) or (n, labels)."""
        found = np.empty((len(ids), self.linear.out_features), np.float32)
        device = self.linear.weight.device
        self.encoder.eval()
        with torch.inference_mode(), half_precision(device):
            for places in batches_in_order([len(of) for of in ids], size=batch_texts):
                found[places] = self.logits([ids[place] for place in places], device).numpy(force=True)
        return found

    def save(self, folder: Path, *, more: dict[str, str | bytes] | None = None) -> None:
        """Write a text model's folder that holds the linear layer too; the encoder in it serves a space as well.

        Raises:
            TextModelError: If the folder holds anything else.
            OSError: If it cannot be written.
        """
        from safetensors.torch import save

        told = {"format": FORMAT, "labels": self.labels, "head_tokens": self._head_tokens}
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.linear.state_dict().items()}
        files: dict[str, str | bytes] = {CLASSIFIER_FILE: json.dumps(told, indent=1) + "\n"}
        files[CLASSIFIER_WEIGHTS] = save(weights)
        save_text_model(folder, self.config, self.encoder.state_dict(), self.tokenizer, more=files | (more or {}))


def load_text_classifier(folder: Path) -> TextClassifier:
    """Load what `TextClassifier.save` wrote.

    Raises:
        TextModelError: If the folder does not hold that.
    """
    config, encoder = read_text_model(folder), load_text_network(folder)
    dim = config.shape.dim
    try:
        told = read_foreign_json(folder / CLASSIFIER_FILE)
        labels, head_tokens = told.get("labels"), told.get("head_tokens")
        if type(told.get("format")) is not int or told["format"] != FORMAT:
            raise TextModelError(f"{folder / CLASSIFIER_FILE} has format {shown(told.get('format'))}, {FORMAT} is read")
        if not isinstance(labels, list) or len(labels) < 2 or not all(isinstance(label, str) for label in labels):
            raise ValueError("it needs a list of at least two labels")
        if len(set(labels)) < len(labels) or any("\ud800" <= letter <= "\udfff" for letter in "".join(labels)):
            raise ValueError("its labels are not all different texts")
        if head_tokens is not None and not (type(head_tokens) is int and 0 <= head_tokens <= MOST):
            raise ValueError(f"head_tokens must be a whole number, got {shown(head_tokens)}")
        outputs = outputs_of(labels)
        with open_tensors(folder / CLASSIFIER_WEIGHTS, max_bytes=MAX_WEIGHTS_BYTES) as file:
            if file.shapes != {"weight": (outputs, dim), "bias": (outputs,)}:
                raise ValueError(f"{CLASSIFIER_WEIGHTS} is not of {len(labels):,} labels and {dim} numbers")
            state = {name: torch.from_numpy(tensor) for name, tensor in file.read().items()}
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise ValueError(f"{CLASSIFIER_WEIGHTS} holds NaN or infinity")
    except (OSError, ValueError) as error:
        raise TextModelError(f"{folder} holds no classifier that can be used: {error}") from error
    linear = nn.Linear(dim, outputs)
    linear.load_state_dict(state)
    tokenizer = read_tokenizer(folder, vocabulary=config.shape.vocabulary).to_str()
    return TextClassifier(encoder, linear, config=config, tokenizer=tokenizer, labels=labels, head_tokens=head_tokens)


def texts_of(given: Any) -> list[str]:
    """Return the texts of a sequence, or of a DataFrame's column `text`.

    Raises:
        TypeError: If it is one text, or a row is none.
    """
    if hasattr(given, "columns"):
        if "text" not in given.columns:
            raise TypeError(
                f"a table needs a column 'text', this one has {', '.join(map(str, given.columns)) or 'none'}"
            )
        given = given["text"]
    if isinstance(given, str | bytes):
        raise TypeError("one text was given: put it into a list, [text]")
    texts = list(given)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"row {row} is no text, but {type(text).__name__}: write '' where there is none")
    return texts


def new_classifier(
    encoder: nn.Module, *, config: TextModelConfig, tokenizer: str, labels: Sequence[str], recipe: ClassifierRecipe
) -> TextClassifier:
    """Put a linear layer of random weights on an encoder.

    Raises:
        ValueError: If there are fewer than two labels.
    """
    if len(labels) < 2:
        raise ValueError(f"a classifier needs at least two labels, got {', '.join(labels) or 'none'}")
    torch.manual_seed(recipe.seed)
    linear = nn.Linear(config.shape.dim, outputs_of(labels))
    return TextClassifier(
        encoder, linear, config=config, tokenizer=tokenizer, labels=labels, head_tokens=recipe.head_tokens
    )


def train_classifier(
    classifier: TextClassifier,
    train: LabelledTexts,
    recipe: ClassifierRecipe,
    *,
    validation: LabelledTexts | None = None,
    test: LabelledTexts | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    tell: Callable[[EpochReport], None] | None = None,
) -> ClassifierTraining:
    """Train a classifier, its encoder with it.

    Args:
        classifier: Is changed.
        train: At least one text.
        recipe: How.
        validation: Chooses the epoch that is kept.
        test: Is only told of; it chooses nothing.
        device: As torch names it.
        progress: Called with the steps done and their number.
        tell: Called with each epoch's report.
    """
    place = torch.device(device)
    classifier.to(device)
    given = [_Prepared(classifier, of) if of is not None else None for of in (train, validation, test)]
    learnt, held_out, judged = given
    assert learnt is not None
    per_epoch = math.ceil(len(learnt.ids) / recipe.batch_texts)
    groups = layer_rates(
        classifier.encoder, rate=recipe.learning_rate, decay=recipe.layer_decay, weight_decay=recipe.weight_decay
    )
    linear = [(f"linear.{name}", parameter) for name, parameter in classifier.linear.named_parameters()]
    rate = recipe.learning_rate * recipe.linear_factor
    groups.append({"params": linear, "lr": rate, "weight_decay": recipe.weight_decay})
    steps = OptimisedSteps(groups, optimiser=recipe.optimiser, steps=per_epoch * recipe.epochs, seed=recipe.seed)
    found = ClassifierTraining()
    best, kept = math.inf, None
    started = time.perf_counter()
    lengths = [len(ids) for ids in learnt.ids]

    def loss(chosen: NDArray[np.int64]) -> Tensor:
        with half_precision(place):
            logits = classifier.logits([learnt.ids[row] for row in chosen], place)
        return loss_of(logits, torch.from_numpy(learnt.truth[chosen]).to(place))

    of_run = {"epochs": recipe.epochs, "size": recipe.batch_texts, "seed": recipe.seed}
    for epoch, mean in learn_epochs(classifier.encoder, steps, loss, lengths, **of_run, progress=progress):
        classifier.encoder.eval()
        on_validation = held_out.judge(classifier) if held_out is not None else (None, None)
        on_test = judged.judge(classifier) if judged is not None else (None, None)
        report = EpochReport(
            epoch=epoch,
            train_loss=mean,
            validation_loss=on_validation[0],
            validation_accuracy=on_validation[1],
            test_loss=on_test[0],
            test_accuracy=on_test[1],
            seconds=time.perf_counter() - started,
        )
        found.epochs.append(report)
        if tell is not None:
            tell(report)
        if report.validation_loss is None:
            found.kept_epoch = epoch
        elif report.validation_loss < best:
            best, found.kept_epoch = report.validation_loss, epoch
            kept = copy.deepcopy((classifier.encoder.state_dict(), classifier.linear.state_dict()))
    if kept is not None:
        classifier.encoder.load_state_dict(kept[0])
        classifier.linear.load_state_dict(kept[1])
    return found


def loss_of(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the mean cross-entropy of labels (n,) by their places: binary, with logits, where there is one output."""
    if logits.shape[1] == 1:
        return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], truth.to(logits.dtype))
    return nn.functional.cross_entropy(logits, truth)


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each label's probability, shape (n, labels), of logits (n, 1) or (n, labels)."""
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return found


def outputs_of(labels: Sequence[str]) -> int:
    """Return how many outputs tell so many labels apart."""
    return 1 if len(labels) == 2 else len(labels)


def record_of(recipe: ClassifierRecipe, training: ClassifierTraining) -> dict[str, Any]:
    """Return how a classifier was trained, fit for JSON."""
    return {
        "recipe": asdict(recipe),
        "epochs": [asdict(report) for report in training.epochs],
        "kept_epoch": training.kept_epoch,
    }


class _Prepared:
    """Texts as ids, and the places of their labels."""

    def __init__(self, classifier: TextClassifier, given: LabelledTexts) -> None:
        place = {label: number for number, label in enumerate(classifier.labels)}
        if unknown := sorted(set(given.labels) - set(place)):
            raise ValueError(f"labels that training has not: {', '.join(unknown[:5])}")
        self.ids = classifier.prepare(given.texts)
        self.truth = np.array([place[label] for label in given.labels], np.int64)

    def judge(self, classifier: TextClassifier) -> tuple[float, float]:
        """Return the mean loss and the accuracy."""
        scores = classifier.scores(self.ids)
        loss = float(loss_of(torch.from_numpy(scores), torch.from_numpy(self.truth)))
        return loss, float((probabilities(scores).argmax(axis=1) == self.truth).mean())
