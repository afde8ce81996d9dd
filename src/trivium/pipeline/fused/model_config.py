"""What a kept model's `model.json` says, checked field by field: the folder may be anybody's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trivium.encoders.base import MODALITIES, Modality
from trivium.encoders.files.foreign import shown

Kind = Literal["classifier", "regressor", "transfer"]
MOST_CLASSES = 100_000
MOST_VIEWS, WIDEST_VIEW = 16, 1 << 17
MAX_TEXT = 4_096  # characters: a path


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A model as it was kept, without its numbers."""

    parameters: Mapping[str, Any]  # of the estimator
    encoders: Mapping[str, str]  # modality -> revision
    views: Mapping[Modality, tuple[int, ...]]
    columns: Sequence[str]
    label: str | None
    classes: Sequence[Any]  # of none but a regressor
    deviation: float  # of a regressor


def checked_config(raw: Mapping[str, Any], kind: Kind) -> ModelConfig:
    """Check what a model's file says.

    Raises:
        ValueError: If something is missing, of another type, or beyond what we write.
    """
    views = _views(raw.get("views"))
    classes = [] if kind == "regressor" else _classes(raw.get("classes"))
    deviation = raw.get("deviation", 1.0)
    if not _is_number(deviation, 0, math.inf) or not deviation:
        raise ValueError(f"deviation must be above 0, got {shown(deviation)}")
    encoders, columns, label = raw.get("encoders"), raw.get("columns"), raw.get("label")
    if not isinstance(encoders, dict) or not all(map(_is_text, encoders.values())):
        raise ValueError("encoders must name a revision for each modality")
    if not isinstance(columns, list) or not columns or not set(map(str, columns)) <= set(MODALITIES):
        raise ValueError("columns must be modalities")
    if label is not None and not _is_text(label):
        raise ValueError(f"label must be a column's name, got {shown(label)}")
    return ModelConfig(
        parameters=_parameters(raw.get("parameters"), kind),
        encoders=encoders,
        views=views,
        columns=columns,
        label=label,
        classes=classes,
        deviation=float(deviation),
    )


def _views(told: Any) -> dict[Modality, tuple[int, ...]]:
    if not isinstance(told, dict) or not told or not told.keys() <= set(MODALITIES):
        raise ValueError("views must be of modalities")
    for widths in told.values():
        is_list = isinstance(widths, list) and 1 <= len(widths) <= MOST_VIEWS
        if not is_list or not all(type(width) is int and 1 <= width <= WIDEST_VIEW for width in widths):
            raise ValueError("views must have widths")
    return {m: tuple(told[m]) for m in MODALITIES if m in told}


def _classes(told: Any) -> list[Any]:
    if not isinstance(told, list) or not 2 <= len(told) <= MOST_CLASSES:
        raise ValueError("classes must be a list of at least two")
    is_words = all(isinstance(label, str) for label in told)
    if not is_words and not all(_is_number(label, -math.inf, math.inf) or isinstance(label, bool) for label in told):
        raise ValueError("classes must all be words or all numbers")
    if len(set(told)) < len(told):
        raise ValueError("a class is there twice")
    return told


def _parameters(told: Any, kind: Kind) -> dict[str, Any]:
    """Return an estimator's parameters; those of a machine, such as where its cache is, are not a model's to choose."""
    if not isinstance(told, dict):
        raise ValueError("parameters are missing")
    known = PARAMETERS[kind]
    for name, value in told.items():
        if name not in known:
            raise ValueError(f"a {kind} has no parameter {shown(name)}")
        if not known[name](value):
            raise ValueError(f"the parameter {name} cannot be {shown(value)}")
    return told


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT and "\0" not in value


def _is_number(value: Any, least: float, most: float) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and least <= value <= most


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**32


_OF_ALL = {"space": _is_text, "precision": lambda value: value in ("float32", "int8")}
_OF_FUSIONS = {
    **_OF_ALL,
    "fusion": _is_text,
    "modality_dropout": lambda value: _is_number(value, 0, 1),
    "most_rows": _is_whole,
    "random_state": _is_whole,
}
PARAMETERS: Mapping[Kind, Mapping[str, Any]] = {
    "classifier": {**_OF_FUSIONS, "metric": lambda value: value in ("f1_macro", "accuracy")},
    "regressor": _OF_FUSIONS,
    "transfer": {
        **_OF_ALL,
        "train_on": lambda value: value is None or value in MODALITIES,
        "ridge": lambda value: _is_number(value, 0, 1e9),
        "centring": lambda value: isinstance(value, bool),
    },
}
