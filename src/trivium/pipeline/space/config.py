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

A backbone of open_clip's is named as `encoders.clip.reference` says, ``open-clip:MODEL/PRETRAINED`` or
``open-clip:hf-hub:ORG/NAME@COMMIT``, with the ``revision`` that the space was made for; a text encoder of one's own
``text-model:NAME``, with its revision: a folder in the space's (`encoders.text.own_models`).
Beside it may lie `calibration.json`, which says how scores become probabilities (`relevance`).
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trivium.encoders.base import MODALITIES, Modality, Space
from trivium.encoders.files.foreign import ForeignFileError, is_plain_name, open_foreign, read_foreign_json, shown
from trivium.encoders.registry import BACKBONES
from trivium.encoders.text.shapes import TEXT_MODEL
from trivium.fusion.projections.head import POOLED, HeadInput

FORMAT = 1
CONFIG_FILE = "space.json"
CALIBRATION_FILE = "calibration.json"
MAX_CONFIG_BYTES = 16 * 1024 * 1024
MAX_PROJECTION_BYTES = 512 * 1024 * 1024  # of a file: our own heads have 30 MB
MAX_NAME, MAX_DESCRIPTION = 200, 10_000  # characters
MAX_INPUTS = 64  # of a head
MAX_WORDS, MAX_WORD = 100_000, 1_000  # of labels: all words, and the letters of one
TEMPERATURES = (1e-4, 1e4)  # beyond them nothing but the largest score is left of a classifier, or nothing of it
MOST_FAULTS = 20  # that are told
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # it names folders of the cache
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
        found = shown(raw.get("format"))
        raise SpaceError(f"{folder / CONFIG_FILE} has format {found}, this Trivium reads format {FORMAT}")
    _refuse_unknown(raw, {"format", "name", "description", "dim", "encoders"}, "space.json", faults)
    name, dim, description = raw.get("name"), raw.get("dim"), raw.get("description", "")
    if not isinstance(name, str) or not name or len(name) > MAX_NAME or not name.isprintable():
        faults.append(f"name must be a word, got {shown(name)}")
    if type(dim) is not int or not 1 <= dim <= 65536:
        faults.append(f"dim must be 1 to 65536, got {shown(dim)}")
    if not isinstance(description, str) or len(description) > MAX_DESCRIPTION:
        faults.append(f"description must be a text of at most {MAX_DESCRIPTION:,} characters")
    entries = raw.get("encoders")
    if not isinstance(entries, dict) or not entries:
        faults.append("encoders must name at least one modality")
        entries = {}
    encoders: dict[Modality, EncoderConfig] = {}
    for modality, entry in entries.items():
        if modality not in MODALITIES:
            faults.append(f"unknown modality {shown(modality)}, known are {', '.join(MODALITIES)}")
        elif not isinstance(entry, dict):
            faults.append(f"encoders.{modality} must be an object")
        elif (encoder := _encoder(folder, modality, entry, faults)) is not None:
            encoders[modality] = encoder
    if faults:
        more = [f"and {len(faults) - MOST_FAULTS:,} more"] if len(faults) > MOST_FAULTS else []
        raise SpaceError(f"{folder / CONFIG_FILE} is not valid: " + "; ".join([*faults[:MOST_FAULTS], *more]))
    return SpaceConfig(
        space=Space(name=str(name), dim=int(str(dim)), revision=_revision(dim, encoders)),
        description=description,
        encoders=encoders,
        folder=folder,
    )


def read_labels(path: Path) -> Labels:
    """Read a label file: ``{"phrases": {class: [word, ...]}, "heads": {head: [class, ...]}}``.

    Raises:
        SpaceError: If it is not of that form, has too many words, or a head names a class without words.
    """
    raw = _read_json(path)
    phrases, heads = raw.get("phrases"), raw.get("heads")
    if not isinstance(phrases, dict) or not isinstance(heads, dict) or not heads:
        raise SpaceError(f"{path} must hold 'phrases' and 'heads'")
    count = 0
    for name, words in phrases.items():
        if not isinstance(words, list) or not words or not all(isinstance(w, str) and w.strip() for w in words):
            raise SpaceError(f"{path}: class {shown(name)} needs a list of words")
        count += len(words)
        if count > MAX_WORDS or any(len(word) > MAX_WORD for word in words):
            raise SpaceError(f"{path} has more than {MAX_WORDS:,} words, or one of more than {MAX_WORD:,} letters")
    for head, classes in heads.items():
        if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
            raise SpaceError(f"{path}: head {shown(head)} needs a list of classes")
        missing = [name for name in classes if name not in phrases]
        if missing:
            told = ", ".join(name if name.isidentifier() else shown(name) for name in missing[:5])
            raise SpaceError(f"{path}: head {shown(head)} names classes without words: {told}")
    return Labels(phrases=phrases, heads=heads)


def named_files(folder: Path) -> set[str]:
    """Return the files that a space's `space.json` names, by their paths with slashes; whether they are there or not.

    Raises:
        SpaceError: If it cannot be read.
    """
    from trivium.encoders.text.own_models import FILES

    found: set[str] = set()
    entries = _read_json(folder / CONFIG_FILE).get("encoders")
    for entry in entries.values() if isinstance(entries, dict) else ():
        if not isinstance(entry, dict):
            continue
        backbone, projection = entry.get("backbone"), entry.get("projection")
        if isinstance(backbone, str) and is_plain_name(model := backbone.removeprefix(TEXT_MODEL)):
            found |= {f"{model}/{file}" for file in FILES} if backbone.startswith(TEXT_MODEL) else set()
        named = [projection.get(key) for key in ("weights", "labels")] if isinstance(projection, dict) else []
        found |= {name for name in named if is_plain_name(name) and name.endswith((".safetensors", ".json"))}
    return found


def _encoder(folder: Path, modality: Modality, entry: dict[str, Any], faults: list[str]) -> EncoderConfig | None:
    where = f"encoders.{modality}"
    _refuse_unknown(entry, {"backbone", "revision", "projection"}, where, faults)
    backbone, revision = entry.get("backbone"), entry.get("revision")
    if revision is not None and not (isinstance(revision, str) and REVISION.fullmatch(revision)):
        faults.append(f"{where}: {shown(revision)} is no revision")
    if not isinstance(backbone, str) or not backbone.isprintable():
        faults.append(f"{where}: unknown backbone {shown(backbone)}")
    elif backbone.startswith(OPEN_CLIP):
        if revision is None:
            faults.append(f"{where}: a backbone of open_clip needs its revision")
    elif backbone.startswith(TEXT_MODEL):
        backbone = _own_text_model(folder, where, modality, backbone, revision, faults)
    elif backbone not in BACKBONES:
        known = ", ".join((*sorted(BACKBONES), f"{OPEN_CLIP}MODEL/PRETRAINED", f"{TEXT_MODEL}FOLDER"))
        faults.append(f"{where}: unknown backbone {shown(backbone)}, known are {known}")
    elif BACKBONES[backbone].modality != modality:
        faults.append(f"{where}: backbone '{backbone}' is for {BACKBONES[backbone].modality}")
    elif revision is not None:
        faults.append(f"{where}: only backbones of open_clip and one's own text models have a revision")
    projection = _projection(folder, where, entry.get("projection"), faults)
    if projection is None or faults:
        return None
    return EncoderConfig(backbone=str(backbone), projection=projection, revision=revision)


def _own_text_model(
    folder: Path, where: str, modality: Modality, backbone: str, revision: Any, faults: list[str]
) -> str:
    """Return the backbone's name with the whole path of its folder, which lies in the space's."""
    name = backbone.removeprefix(TEXT_MODEL)
    if modality != "text":
        faults.append(f"{where}: backbone {shown(backbone)} is for text")
    if revision is None:
        faults.append(f"{where}: a text model of one's own needs its revision")
    # A plain name and no link, so that a space folder from outside cannot point elsewhere on the disk.
    if not is_plain_name(name) or not (folder / name).is_dir() or (folder / name).is_symlink():
        faults.append(f"{where}: no folder {shown(name)} with a text model in the space's folder")
    return f"{TEXT_MODEL}{(folder / name).absolute()}"


def _projection(folder: Path, where: str, projection: Any, faults: list[str]) -> ProjectionConfig | None:
    kind: Any = projection.get("kind") if isinstance(projection, dict) else None
    if not isinstance(projection, dict) or str(kind) not in PROJECTION_KEYS:
        faults.append(f"{where}: projection.kind must be one of {', '.join(PROJECTION_KEYS)}, got {shown(kind)}")
        return None
    _refuse_unknown(projection, PROJECTION_KEYS[kind], f"{where}.projection", faults)
    temperature = projection.get("temperature", 1.0)
    _check_temperature(where, temperature, faults)
    file = None
    named = projection.get("weights" if kind in ("linear", "head") else "labels")
    if kind != "identity":
        # A plain name, so that a space folder from outside cannot point elsewhere on the disk.
        if not is_plain_name(named) or not os.path.lexists(folder / named):
            faults.append(f"{where}: no file {shown(named)} in the space's folder")
        else:
            file = folder / named
    inputs = _inputs(where, projection.get("inputs", [POOLED]), faults) if kind == "head" else ()
    return None if faults else ProjectionConfig(kind=kind, file=file, temperature=temperature, inputs=inputs)


def _inputs(where: str, written: Any, faults: list[str]) -> tuple[HeadInput, ...]:
    """Read what a head takes: "pooled", a classifier's name, or {"classes": name, "temperature": t}."""
    found = []
    if not isinstance(written, list) or not 1 <= len(written) <= MAX_INPUTS:
        written = [None]
    for each in written:
        if isinstance(each, str):
            found.append(HeadInput(each))
        elif isinstance(each, dict) and each.keys() == {"classes", "temperature"} and isinstance(each["classes"], str):
            if _check_temperature(where, each["temperature"], faults):
                found.append(HeadInput(each["classes"], float(each["temperature"])))
        else:
            faults.append(f"{where}: inputs must be a list of names, or of objects with classes and temperature")
    return tuple(found)


def _check_temperature(where: str, number: Any, faults: list[str]) -> bool:
    least, most = TEMPERATURES
    if isinstance(number, int | float) and not isinstance(number, bool):
        if least <= number <= most:
            return True
        if number > 0:
            faults.append(f"{where}: temperature must be {least:g} to {most:g}, got {shown(number)}")
            return False
    faults.append(f"{where}: temperature must be above 0, got {shown(number)}")
    return False


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
            digest.update(_file_digest(projection.file))
    return digest.hexdigest()[:12]


def _file_digest(path: Path) -> bytes:
    try:
        with open_foreign(path, max_bytes=MAX_PROJECTION_BYTES) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except ForeignFileError as error:
        raise SpaceError(str(error)) from error
    except OSError as error:
        raise SpaceError(f"{path} cannot be read: {error.strerror}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_foreign_json(path, max_bytes=MAX_CONFIG_BYTES)
    except ForeignFileError as error:
        raise SpaceError(str(error)) from error


def _refuse_unknown(raw: Mapping[str, Any], known: set[str] | frozenset[str], where: str, faults: list[str]) -> None:
    if unknown := sorted(set(raw) - known):
        told = ", ".join(name if name.isidentifier() else shown(name) for name in unknown[:5])
        faults.append(f"{where} has unknown keys: {told}")
