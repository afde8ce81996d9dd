"""A space as a folder: `space.json` says which frozen backbone and which projection each modality has.

The spaces that ship with Trivium lie in `trivium/spaces` and have the same form as a user's own. A config is read
into frozen dataclasses; unknown keys are refused, so that a typing error is not a silent default.

    {"format": 1, "name": "my-space", "dim": 384,
     "encoders": {
       "text":  {"backbone": "minilm-l6", "projection": {"kind": "centred", "labels": "imagenet.json"}},
       "image": {"backbone": "efficientnet-lite0",
                 "projection": {"kind": "labels", "labels": "imagenet.json", "temperature": 2}},
       "audio": {"backbone": "aisfx",
                 "projection": {"kind": "head", "weights": "audio.safetensors", "inputs": ["pooled"]}}}}

A backbone of open_clip's is named as `encoders.clip_source` says, ``open-clip:MODEL/PRETRAINED`` or
``open-clip:hf-hub:ORG/NAME@COMMIT``, with the ``revision`` that the space was made for; a text encoder of one's own
``text-model:NAME``, with its revision: a folder in the space's (`encoders.text_model`).
Beside it may lie `calibration.json`, which says how scores become probabilities (`relevance`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trivium.encoders.base import MODALITIES, Modality, Space
from trivium.encoders.registry import BACKBONES
from trivium.encoders.text_shapes import TEXT_MODEL
from trivium.fusion.head import POOLED, HeadInput

FORMAT = 1
CONFIG_FILE = "space.json"
CALIBRATION_FILE = "calibration.json"
MAX_CONFIG_BYTES = 16 * 1024 * 1024
OPEN_CLIP = "open-clip:"  # backbones of such names are open_clip's
PROJECTION_KEYS: Mapping[str, frozenset[str]] = {
    "identity": frozenset({"kind"}),
    "linear": frozenset({"kind", "weights"}),
    "centred": frozenset({"kind", "labels"}),
    "labels": frozenset({"kind", "labels", "temperature"}),
    "head": frozenset({"kind", "weights", "inputs"}),
}


class SpaceError(Exception):
    """A space that does not exist, or whose folder is not as it must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionConfig:
    """How a backbone's features come into the space."""

    kind: Literal["identity", "linear", "centred", "labels", "head"]
    file: Path | None = None  # label lists or weights
    temperature: float = 1.0  # of the classifier's probabilities, for labels
    inputs: tuple[HeadInput, ...] = ()  # of a head


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """One modality of a space."""

    backbone: str
    projection: ProjectionConfig
    revision: str | None = None  # of open_clip's backbone, or one's own: what it must have

    @property
    def backbone_revision(self) -> str:
        """Changes with whatever moves a vector of the backbone."""
        return BACKBONES[self.backbone].revision if self.revision is None else self.revision


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceConfig:
    """A whole space, checked; nothing heavy is loaded yet."""

    space: Space
    description: str
    encoders: Mapping[Modality, EncoderConfig]
    folder: Path | None = None  # where it was read from


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Words for the classes of a backbone's heads."""

    phrases: Mapping[str, list[str]]  # class -> everyday words for it
    heads: Mapping[str, list[str]]  # head -> its classes in rank order


def read_space_config(folder: Path) -> SpaceConfig:
    """Read and check a space folder.

    Raises:
        SpaceError: If there is no ``space.json``, or it is not valid; all faults found are listed.
    """
    raw = _read_json(folder / CONFIG_FILE)
    faults: list[str] = []
    if raw.get("format") != FORMAT:
        raise SpaceError(f"{folder / CONFIG_FILE} has format {raw.get('format')!r}, this Trivium reads format {FORMAT}")
    _refuse_unknown(raw, {"format", "name", "description", "dim", "encoders"}, "space.json", faults)
    name, dim = raw.get("name"), raw.get("dim")
    if not isinstance(name, str) or not name:
        faults.append(f"name must be a word, got {name!r}")
    if not isinstance(dim, int) or not 1 <= dim <= 65536:
        faults.append(f"dim must be 1 to 65536, got {dim!r}")
    entries = raw.get("encoders")
    if not isinstance(entries, dict) or not entries:
        faults.append("encoders must name at least one modality")
        entries = {}
    encoders: dict[Modality, EncoderConfig] = {}
    for modality, entry in entries.items():
        if modality not in MODALITIES:
            faults.append(f"unknown modality '{modality}', known are {', '.join(MODALITIES)}")
        elif not isinstance(entry, dict):
            faults.append(f"encoders.{modality} must be an object")
        elif (encoder := _encoder(folder, modality, entry, faults)) is not None:
            encoders[modality] = encoder
    if faults:
        raise SpaceError(f"{folder / CONFIG_FILE} is not valid: " + "; ".join(faults))
    revision = _revision(dim, encoders)
    return SpaceConfig(
        space=Space(name=str(name), dim=int(str(dim)), revision=revision),
        description=str(raw.get("description", "")),
        encoders=encoders,
        folder=folder,
    )


def read_labels(path: Path) -> Labels:
    """Read a label file: ``{"phrases": {class: [word, ...]}, "heads": {head: [class, ...]}}``.

    Raises:
        SpaceError: If it is not of that form, or a head names a class without words.
    """
    raw = _read_json(path)
    phrases, heads = raw.get("phrases"), raw.get("heads")
    if not isinstance(phrases, dict) or not isinstance(heads, dict) or not heads:
        raise SpaceError(f"{path} must hold 'phrases' and 'heads'")
    for name, words in phrases.items():
        if not isinstance(words, list) or not words or not all(isinstance(word, str) and word for word in words):
            raise SpaceError(f"{path}: class '{name}' needs a list of words")
    for head, classes in heads.items():
        missing = [name for name in classes if name not in phrases]
        if missing:
            raise SpaceError(f"{path}: head '{head}' names classes without words: {', '.join(missing[:5])}")
    return Labels(phrases=phrases, heads=heads)


def _encoder(folder: Path, modality: Modality, entry: dict[str, Any], faults: list[str]) -> EncoderConfig | None:
    where = f"encoders.{modality}"
    _refuse_unknown(entry, {"backbone", "revision", "projection"}, where, faults)
    backbone, revision = str(entry.get("backbone")), entry.get("revision")
    if backbone.startswith(OPEN_CLIP):
        if not isinstance(revision, str) or not revision:
            faults.append(f"{where}: a backbone of open_clip needs its revision")
    elif backbone.startswith(TEXT_MODEL):
        backbone = _own_text_model(folder, where, modality, backbone, revision, faults)
    elif backbone not in BACKBONES:
        known = ", ".join((*sorted(BACKBONES), f"{OPEN_CLIP}MODEL/PRETRAINED", f"{TEXT_MODEL}FOLDER"))
        faults.append(f"{where}: unknown backbone {entry.get('backbone')!r}, known are {known}")
    elif BACKBONES[backbone].modality != modality:
        faults.append(f"{where}: backbone '{backbone}' is for {BACKBONES[backbone].modality}")
    elif revision is not None:
        faults.append(f"{where}: only backbones of open_clip and one's own text models have a revision")
    projection = _projection(folder, where, entry.get("projection"), faults)
    if projection is None or faults:
        return None
    return EncoderConfig(backbone=backbone, projection=projection, revision=revision)


def _own_text_model(
    folder: Path, where: str, modality: Modality, backbone: str, revision: Any, faults: list[str]
) -> str:
    """Return the backbone's name with the whole path of its folder, which lies in the space's."""
    name = backbone.removeprefix(TEXT_MODEL)
    if modality != "text":
        faults.append(f"{where}: backbone '{backbone}' is for text")
    if not isinstance(revision, str) or not revision:
        faults.append(f"{where}: a text model of one's own needs its revision")
    # A plain name, so that a space folder from outside cannot point elsewhere on the disk.
    if Path(name).name != name or not (folder / name).is_dir():
        faults.append(f"{where}: no folder {name!r} with a text model in the space's folder")
    return f"{TEXT_MODEL}{(folder / name).absolute()}"


def _projection(folder: Path, where: str, projection: Any, faults: list[str]) -> ProjectionConfig | None:
    kind: Any = projection.get("kind") if isinstance(projection, dict) else None
    if not isinstance(projection, dict) or kind not in PROJECTION_KEYS:
        faults.append(f"{where}: projection.kind must be one of {', '.join(PROJECTION_KEYS)}, got {kind!r}")
        return None
    _refuse_unknown(projection, PROJECTION_KEYS[kind], f"{where}.projection", faults)
    temperature = projection.get("temperature", 1.0)
    if not _is_above_zero(temperature):
        faults.append(f"{where}: temperature must be above 0, got {temperature!r}")
    file = None
    named = projection.get("weights" if kind in ("linear", "head") else "labels")
    if kind != "identity":
        # A plain name, so that a space folder from outside cannot point elsewhere on the disk.
        if not isinstance(named, str) or Path(named).name != named or not (folder / named).is_file():
            faults.append(f"{where}: no file {named!r} in the space's folder")
        else:
            file = folder / named
    inputs = _inputs(where, projection.get("inputs", [POOLED]), faults) if kind == "head" else ()
    return None if faults else ProjectionConfig(kind=kind, file=file, temperature=temperature, inputs=inputs)


def _inputs(where: str, written: Any, faults: list[str]) -> tuple[HeadInput, ...]:
    """Read what a head takes: "pooled", a classifier's name, or {"classes": name, "temperature": t}."""
    found = []
    for each in written if isinstance(written, list) else [None]:
        if isinstance(each, str):
            found.append(HeadInput(each))
        elif isinstance(each, dict) and each.keys() == {"classes", "temperature"} and isinstance(each["classes"], str):
            if not _is_above_zero(each["temperature"]):
                faults.append(f"{where}: temperature must be above 0, got {each['temperature']!r}")
                continue
            found.append(HeadInput(each["classes"], float(each["temperature"])))
        else:
            faults.append(f"{where}: inputs must be a list of names, or of objects with classes and temperature")
    return tuple(found)


def _is_above_zero(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < float("inf")


def _revision(dim: Any, encoders: Mapping[Modality, EncoderConfig]) -> str:
    """Hash all that decides what vector an item gets."""
    digest = hashlib.sha256(str(dim).encode())
    for modality in sorted(encoders):
        config = encoders[modality]
        projection = config.projection
        digest.update(f"|{modality}|{config.backbone_revision}|{projection.kind}|{projection.temperature}|".encode())
        if projection.inputs:
            digest.update(repr([(each.name, each.temperature) for each in projection.inputs]).encode())
        if projection.file is not None:
            digest.update(hashlib.sha256(projection.file.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise SpaceError(f"{path} is too large for a config: {path.stat().st_size:,} bytes")
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise SpaceError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SpaceError(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise SpaceError(f"{path} must hold an object")
    return raw


def _refuse_unknown(raw: Mapping[str, Any], known: set[str] | frozenset[str], where: str, faults: list[str]) -> None:
    if unknown := sorted(set(raw) - known):
        faults.append(f"{where} has unknown keys: {', '.join(unknown)}")
