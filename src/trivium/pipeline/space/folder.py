"""Writing a space: a folder as `space.config` reads it, there whole or not at all."""

import json
import shutil
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np

from trivium.encoders.base import Modality
from trivium.encoders.files.folders import OwnFolder, marker_of, written_whole
from trivium.encoders.files.folders import check_target as check_folder
from trivium.encoders.text.shapes import TEXT_MODEL
from trivium.fusion.projections.head import MEMBER_WEIGHTS, Head, HeadInput
from trivium.pipeline.space.config import (
    CALIBRATION_FILE,
    CONFIG_FILE,
    FORMAT,
    EncoderConfig,
    SpaceError,
    named_files,
    read_space_config,
)
from trivium.pipeline.space.relevance import Relevance

MORE_FILES = frozenset({"training.json", "card.md", "curve.png"})  # that training may add


def write_space(
    folder: Path,
    *,
    name: str,
    description: str,
    dim: int,
    encoders: Mapping[Modality, EncoderConfig],
    heads: Mapping[Modality, Head],
    relevance: Relevance | None = None,
    half: bool = False,
    more: Mapping[str, str | bytes] | None = None,
) -> None:
    """Write a space's folder.

    Args:
        folder: Must not exist, unless it holds a space and nothing else, which is replaced.
        name: Of the space.
        description: One sentence.
        dim: Numbers of a vector.
        encoders: The backbone of each modality, and the projection of those that have no new head.
        heads: The new heads.
        relevance: How scores become probabilities.
        half: Keep heads in half precision: half the size, vectors off by about 1e-4.
        more: Other files, by name: some of `MORE_FILES`.

    Raises:
        SpaceError: If the folder holds anything else, or what was written is not valid.
        OSError: If it cannot be written.
    """
    more = more or {}
    assert more.keys() <= MORE_FILES  # else what is written could not be replaced
    with written_whole(folder, OWN) as draft:
        entries = {}
        for modality, encoder in encoders.items():
            entry: dict[str, Any] = {"backbone": _copied_backbone(draft, encoder)}
            if encoder.revision is not None:
                entry["revision"] = encoder.revision
            if modality in heads:
                entry["projection"] = _write_head(draft, modality, heads[modality], half=half)
            else:
                entry["projection"] = _copied_projection(draft, encoder)
            entries[modality] = entry
        config = {"format": FORMAT, "name": name, "description": description, "dim": dim, "encoders": entries}
        (draft / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n")
        if relevance is not None and relevance.of_pair:
            (draft / CALIBRATION_FILE).write_text(json.dumps(relevance.to_json(), indent=1) + "\n")
        for file, content in more.items():
            (draft / file).write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        read_space_config(draft)


def check_target(folder: Path) -> None:
    """Refuse a folder that holds anything but a space, before hours are spent.

    Raises:
        SpaceError: If it does.
    """
    check_folder(folder, OWN)


def _own_names(folder: Path) -> Set[str] | None:
    if marker_of(folder, CONFIG_FILE, formats=FORMAT) is None:
        return None
    return {CONFIG_FILE, CALIBRATION_FILE, *MORE_FILES, *named_files(folder)}


OWN = OwnFolder(what="space", marker=CONFIG_FILE, refused=SpaceError, names=_own_names)


def _write_head(folder: Path, modality: Modality, head: Head, *, half: bool) -> dict[str, Any]:
    from safetensors.numpy import save_file

    file = f"{modality}.safetensors"
    kept = {"mean", "scale", MEMBER_WEIGHTS} if half else set(head.tensors)  # what divides stays exact
    tensors = {
        key: np.ascontiguousarray(tensor, np.float32 if key in kept else np.float16)
        for key, tensor in sorted(head.tensors.items())
    }
    save_file(tensors, folder / file)
    return {"kind": "head", "weights": file, "inputs": [_written(each) for each in head.inputs]}


def _written(given: HeadInput) -> Any:
    if given.temperature is None:
        return given.name
    return {"classes": given.name, "temperature": given.temperature}


def _copied_backbone(folder: Path, encoder: EncoderConfig) -> str:
    """Return a backbone's name; a text model of one's own comes into the space's folder, so that it can be moved."""
    if not encoder.backbone.startswith(TEXT_MODEL):
        return encoder.backbone
    from trivium.encoders.text.own_models import FILES

    source = Path(encoder.backbone.removeprefix(TEXT_MODEL))
    (folder / source.name).mkdir()
    for file in FILES:
        shutil.copyfile(source / file, folder / source.name / file)
    return f"{TEXT_MODEL}{source.name}"


def _copied_projection(folder: Path, encoder: EncoderConfig) -> dict[str, Any]:
    projection = encoder.projection
    entry: dict[str, Any] = {"kind": projection.kind}
    if projection.file is not None:
        shutil.copy(projection.file, folder / projection.file.name)
        entry["weights" if projection.kind in ("linear", "head") else "labels"] = projection.file.name
    if projection.kind == "labels":
        entry["temperature"] = projection.temperature
    if projection.kind == "head":
        entry["inputs"] = [_written(each) for each in projection.inputs]
    return entry
