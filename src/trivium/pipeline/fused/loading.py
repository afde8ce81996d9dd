"""Classifiers from their folders, whichever command or class wrote them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.encoders.text.own_models import CLASSIFIER_FILE, CLASSIFIER_WEIGHTS

if TYPE_CHECKING:
    from trivium.pipeline.fused.classifier import FusedClassifier, FusedRegressor
    from trivium.pipeline.fused.transfer import TransferClassifier
    from trivium.pipeline.text_learning.classifying import TextClassifier


def load_classifier(
    folder: str | Path,
) -> "FusedClassifier | FusedRegressor | TransferClassifier | TextClassifier":
    """Load what `trivium classify train` or `trivium train-text` wrote, or the method `save` of a fitted classifier.

    Each predicts from a DataFrame with columns `text`, `image` and `audio`; a `TextClassifier` needs the first alone,
    and takes a sequence of texts too.

    Raises:
        ModelError: If the folder holds no classifier, or one of other encoders than those that are there.
        TextModelError: If it holds a text classifier that is damaged.
    """
    folder = Path(folder)
    if is_text_classifier(folder):
        from trivium.pipeline.text_learning.classifying import load_text_classifier

        return load_text_classifier(folder)
    from trivium.pipeline.fused.classifier import FusedClassifier, FusedRegressor
    from trivium.pipeline.fused.model_folder import read_model_config
    from trivium.pipeline.fused.transfer import TransferClassifier

    kinds: dict[Any, Any] = {each.kind: each for each in (FusedClassifier, FusedRegressor, TransferClassifier)}
    kind = read_model_config(folder).get("kind")
    known: Any = kinds[kind] if isinstance(kind, str) and kind in kinds else FusedClassifier
    found: FusedClassifier | FusedRegressor | TransferClassifier = known.load(folder)
    return found


def is_text_classifier(folder: Path) -> bool:
    """Whether `trivium train-text` wrote it, or what is left of that: an encoder and a linear layer."""
    return any(os.path.lexists(folder / name) for name in (CLASSIFIER_FILE, CLASSIFIER_WEIGHTS))
