"""Fitted estimators as folders: `model.json` says what they are, `model.safetensors` holds the numbers.

A folder may be anybody's: `checked_config` checks what its JSON says field by field, `fusion.state` the tensors.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from trivium.encoders.base import MODALITIES, Modality
from trivium.encoders.files.folders import OwnFolder, check_target, marker_of, written_whole
from trivium.encoders.files.foreign import ForeignFileError, read_foreign_json, shown
from trivium.encoders.files.tensors import open_tensors
from trivium.fusion.estimators import BlockClassifier, BlockRegressor
from trivium.fusion.state import StateError, check_state, from_state, state_of
from trivium.fusion.transfer import BlockTransferClassifier
from trivium.pipeline.features.frames import blocks_of, revisions_of
from trivium.pipeline.space.config import OPEN_CLIP
from trivium.pipeline.space.joint import space_folders
from trivium.version import __version__

ModelKind = Literal["classifier", "regressor", "transfer"]
FORMAT = 2
CONFIG, TENSORS = "model.json", "model.safetensors"
MAX_CONFIG_BYTES = 16 * 1024 * 1024
MAX_TENSOR_BYTES = 4 << 30  # kernels keep 2,500 rows of some 10,000 numbers: 100 MB
MOST_CLASSES = 100_000
MOST_VIEWS, WIDEST_VIEW = 16, 1 << 17
MAX_TEXT = 4_096  # characters: a path
Estimator = TypeVar("Estimator")
PATHS = ("cache", "device")  # parameters of this machine, not of the model
OF_FRAMES = ("space", "precision")  # and those that a model over tables has not
INNER: Mapping[ModelKind, Any] = {
    "classifier": BlockClassifier,
    "regressor": BlockRegressor,
    "transfer": BlockTransferClassifier,
}


class ModelError(Exception):
    """A folder that is no model, or one that fits no encoders here."""


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


def save_model(estimator: Any, folder: Path, *, kind: ModelKind) -> None:
    """Write a fitted estimator: whole or not at all; a model that is there is replaced.

    Raises:
        ModelError: If the folder holds anything else, or the labels cannot be written as JSON.
    """
    from safetensors.numpy import save_file

    check_target(folder, OWN)
    tensors, told = state_of(estimator.model_.model_)
    parameters = {name: _plain(name, value) for name, value in estimator.get_params().items() if name not in PATHS}
    config = {
        "format": FORMAT,
        "trivium": __version__,
        "kind": kind,
        "parameters": parameters,
        "encoders": revisions_of(estimator.joint_space(), [m for m in MODALITIES if m in estimator.views_]),
        "views": {m: list(views) for m, views in estimator.views_.items()},
        "label": estimator.label_name_,
        "columns": [str(name) for name in estimator.feature_names_in_],
        "model": told,
    }
    if kind == "regressor":
        config["deviation"] = estimator.model_.deviation_
    else:
        config["classes"] = _labels(estimator.classes_)
    with written_whole(folder, OWN) as draft:
        (draft / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, draft / TENSORS)


def load_model(estimator: Estimator, folder: Path, *, kind: ModelKind) -> Estimator:
    """Fill an estimator with what `save_model` wrote, or what somebody says it did.

    Raises:
        ModelError: If it is no such folder, or of other encoders than those that are there.
        SpaceError: If its space is none here.
    """
    config = read_model_config(folder)
    if config.get("format") != FORMAT or config.get("kind") != kind:
        found = shown(config.get("kind")).strip("'"), shown(config.get("format"))
        raise ModelError(f"{folder} is no {kind} of format {FORMAT}, it is {found[0]} of format {found[1]}")
    filled: Any = estimator
    try:
        checked = checked_config(config, kind)
        outputs = 1 if kind == "regressor" else len(checked.classes)
        with open_tensors(folder / TENSORS, max_bytes=MAX_TENSOR_BYTES) as file:
            fusion = checked.parameters.get("fusion", "")
            widths: dict[str, int] = {m: sum(views) for m, views in checked.views.items()}
            check_state(file.shapes, config.get("model"), widths=widths, outputs=outputs, fusion=fusion)
            tensors = file.read()
        filled.set_params(**checked.parameters)
        filled.named_elsewhere_ = checked.parameters.get("space")
        filled.views_ = dict(checked.views)
        filled.feature_names_in_ = np.array(checked.columns, object)
        filled.label_name_ = checked.label
        filled.n_features_in_ = len(checked.columns)
        inner: Any = _inner(checked, tensors, config["model"], kind)
        filled.model_, filled.blocks_ = inner, inner.blocks_
        if kind != "regressor":
            filled.classes_ = inner.classes_
    except StateError as error:
        raise ModelError(f"{folder} is damaged: {error}") from error
    except ForeignFileError as error:
        raise ModelError(f"{folder} cannot be read as a model: {error}") from error
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder} is damaged: {type(error).__name__}: {error}") from error
    here = revisions_of(filled.joint_space(), list(checked.views))
    if here != checked.encoders:
        raise ModelError(f"{folder} was made with encoders {checked.encoders}, here they are {here}: train it again")
    return estimator


def read_model_config(folder: Path) -> dict[str, Any]:
    """Read what a folder's model is; nothing of it is checked but that it is an object.

    Raises:
        ModelError: If it cannot be read.
    """
    if not folder.is_dir():
        raise ModelError(f"there is no folder {folder}")
    if not os.path.lexists(folder / CONFIG):
        raise ModelError(f"{folder} is no classifier: it has no {CONFIG}")
    try:
        return read_foreign_json(folder / CONFIG, max_bytes=MAX_CONFIG_BYTES, constants=True)
    except ForeignFileError as error:
        raise ModelError(f"{folder} cannot be read as a model: {error}") from error


def _inner(checked: ModelConfig, tensors: dict[str, np.ndarray], told: dict[str, Any], kind: ModelKind) -> Any:
    blocks = blocks_of({str(m): views for m, views in checked.views.items()})
    parameters = {name: value for name, value in checked.parameters.items() if name not in OF_FRAMES}
    if kind != "transfer":
        parameters["views"] = dict(checked.views)
    inner: Any = INNER[kind](blocks=blocks, **parameters)
    inner.blocks_ = dict(sorted(blocks.items()))
    inner.n_features_in_ = sum(map(sum, checked.views.values()))
    inner.model_ = from_state(tensors, told, fusion=checked.parameters.get("fusion", ""))
    if kind == "regressor":
        inner.deviation_ = checked.deviation
    else:
        inner.classes_ = np.array(checked.classes)
    return inner


def _own_names(folder: Path) -> Set[str] | None:
    is_ours = marker_of(folder, CONFIG, formats=FORMAT, kinds=INNER.keys()) is not None
    return {CONFIG, TENSORS} if is_ours else None


OWN = OwnFolder(what="model", marker=CONFIG, refused=ModelError, names=_own_names)


def _labels(classes: Any) -> list[Any]:
    found = [label.item() if isinstance(label, np.generic) else label for label in classes]
    if len({type(label) for label in found}) > 1 or not isinstance(found[0], str | int | float):
        kinds = ", ".join(sorted({type(label).__name__ for label in found}))
        raise ModelError(f"labels must all be words or all numbers to be written, got {kinds}")
    return found


def _plain(name: str, value: Any) -> Any:
    """Return a parameter as JSON has it; a space's folder by its whole path, as a model may be used from anywhere."""
    value = str(value) if isinstance(value, os.PathLike) else value
    is_folder = name == "space" and value not in space_folders() and not value.startswith(OPEN_CLIP)
    return os.path.abspath(value) if is_folder else value


def checked_config(raw: Mapping[str, Any], kind: ModelKind) -> ModelConfig:
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


def _parameters(told: Any, kind: ModelKind) -> dict[str, Any]:
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
PARAMETERS: Mapping[ModelKind, Mapping[str, Any]] = {
    "classifier": {**_OF_FUSIONS, "metric": lambda value: value in ("f1_macro", "accuracy")},
    "regressor": _OF_FUSIONS,
    "transfer": {
        **_OF_ALL,
        "train_on": lambda value: value is None or value in MODALITIES,
        "ridge": lambda value: _is_number(value, 0, 1e9),
        "centring": lambda value: isinstance(value, bool),
    },
}
