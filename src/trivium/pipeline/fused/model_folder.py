"""Fitted estimators as folders: `model.json` says what they are, `model.safetensors` holds the numbers."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

import trivium
from trivium.encoders.base import MODALITIES, Modality
from trivium.encoders.whole_folder import is_other, written_whole
from trivium.fusion.block_estimators import BlockClassifier, BlockRegressor
from trivium.fusion.fusion_state import StateError, from_state, state_of
from trivium.fusion.transfer import BlockTransferClassifier
from trivium.pipeline.fused.columns import blocks_of
from trivium.pipeline.fused.frames import revisions_of

FORMAT = 2
CONFIG, TENSORS = "model.json", "model.safetensors"
Kind = Literal["classifier", "regressor", "transfer"]
Estimator = TypeVar("Estimator")
Views = dict[str, tuple[int, ...]]
PATHS = ("cache", "device")  # parameters of this machine, not of the model
OF_FRAMES = ("space", "precision")  # and those that a model over tables has not
INNER: Mapping[Kind, Any] = {
    "classifier": BlockClassifier,
    "regressor": BlockRegressor,
    "transfer": BlockTransferClassifier,
}


class ModelError(Exception):
    """A folder that is no model, or one that fits no encoders here."""


def save_model(estimator: Any, folder: Path, *, kind: Kind) -> None:
    """Write a fitted estimator: whole or not at all; a model that is there is replaced.

    Raises:
        ModelError: If the folder holds anything else, or the labels cannot be written as JSON.
    """
    from safetensors.numpy import save_file

    if is_other(folder, marker=CONFIG):
        raise ModelError(f"{folder} exists and is no model: choose another folder")
    tensors, told = state_of(estimator.model_.model_)
    parameters = {name: _plain(value) for name, value in estimator.get_params().items() if name not in PATHS}
    config = {
        "format": FORMAT,
        "trivium": trivium.__version__,
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
    with written_whole(folder) as draft:
        (draft / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, draft / TENSORS)


def load_model(estimator: Estimator, folder: Path, *, kind: Kind) -> Estimator:
    """Fill an estimator with what `save_model` wrote.

    Raises:
        ModelError: If it is no such folder, or of other encoders than those that are there.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict) or config.get("format") != FORMAT or config.get("kind") != kind:
            found = config.get("kind"), config.get("format")
            raise ModelError(f"{folder} is no {kind} of format {FORMAT}, it is {found[0]} of format {found[1]}")
        tensors = load_file(folder / TENSORS)
        filled: Any = estimator
        filled.set_params(**config["parameters"])
        kept: dict[str, list[int]] = config["views"]
        modalities: list[Modality] = [m for m in MODALITIES if m in kept]
        views: Views = {m: tuple(int(width) for width in kept[m]) for m in modalities}
        filled.views_ = views
        filled.feature_names_in_ = np.array([str(name) for name in config["columns"]], object)
        filled.label_name_ = None if config["label"] is None else str(config["label"])
        filled.n_features_in_ = len(filled.feature_names_in_)
        inner: Any = _inner(config, views, tensors, kind)
        filled.model_, filled.blocks_ = inner, inner.blocks_
        if kind != "regressor":
            filled.classes_ = inner.classes_
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise ModelError(f"{folder} cannot be read as a model: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, StateError) as error:
        raise ModelError(f"{folder} is damaged: {type(error).__name__}: {error}") from error
    here = revisions_of(filled.joint_space(), modalities)
    if here != config["encoders"]:
        raise ModelError(f"{folder} was made with encoders {config['encoders']}, here they are {here}: train it again")
    return estimator


def _inner(config: dict[str, Any], views: Views, tensors: dict[str, np.ndarray], kind: Kind) -> Any:
    blocks = blocks_of(views)
    parameters = {name: value for name, value in config["parameters"].items() if name not in OF_FRAMES}
    if kind != "transfer":
        parameters["views"] = views
    inner: Any = INNER[kind](blocks=blocks, **parameters)
    inner.blocks_ = dict(sorted(blocks.items()))
    inner.n_features_in_ = sum(map(sum, views.values()))
    inner.model_ = from_state(tensors, config["model"], fusion=config["parameters"].get("fusion", ""))
    if kind == "regressor":
        inner.deviation_ = float(config["deviation"])
    else:
        inner.classes_ = np.array(config["classes"])
    return inner


def _labels(classes: Any) -> list[Any]:
    found = [label.item() if isinstance(label, np.generic) else label for label in classes]
    if len({type(label) for label in found}) > 1 or not isinstance(found[0], str | int | float):
        kinds = ", ".join(sorted({type(label).__name__ for label in found}))
        raise ModelError(f"labels must all be words or all numbers to be written, got {kinds}")
    return found


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, os.PathLike) else value
