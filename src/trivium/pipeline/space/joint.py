"""Spaces: frozen encoders of several modalities and the projections that bring them together."""

import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import platformdirs

from trivium.encoders.base import (
    Backbone,
    Encoder,
    Modality,
    Space,
    Vector,
    Vectors,
)
from trivium.encoders.batching import BATCH_ITEMS, OnError, encode
from trivium.encoders.devices import resolve
from trivium.encoders.engine import Stats
from trivium.encoders.files.foreign import shown
from trivium.encoders.networks.contract import DeviceKind, Precision, device_kind
from trivium.encoders.networks.weights import Weights
from trivium.encoders.registry import backbone_spec, build_backbone
from trivium.encoders.several import OneItem, path_of
from trivium.encoders.text.shapes import TEXT_MODEL
from trivium.fusion.projections.plain import Projection
from trivium.pipeline.space.config import (
    CALIBRATION_FILE,
    CONFIG_FILE,
    OPEN_CLIP,
    EncoderConfig,
    ProjectionConfig,
    SpaceConfig,
    SpaceError,
    read_labels,
    read_space_config,
)
from trivium.pipeline.space.projections import ProjectedEncoder, build_projection
from trivium.pipeline.space.relevance import Relevance, read_relevance

if TYPE_CHECKING:
    from trivium.encoders.clip.model import OpenClip

DEFAULT_SPACE, LABELS_SPACE = "trivium-base", "trivium-labels"


class JointSpace:
    """A space with its encoders, each loaded when it is first used."""

    def __init__(
        self,
        config: SpaceConfig,
        *,
        source: str,
        device: str = "cpu",
        precision: Precision = "float32",
        announce: Callable[[str], None] | None = None,
        clips: "Mapping[str, OpenClip] | None" = None,
        named: Collection[str] = (),
    ) -> None:
        """Prepare a space.

        Args:
            config: What it is made of.
            source: What `load_space` takes.
            device: See `load_space`.
            precision: See `load_space`.
            announce: Called with one line before each download.
            clips: open_clip's models that are loaded already, by reference.
            named: References of open_clip's models that the user named; for others, which only the space's folder
                names, nothing is fetched.
        """
        self.source = source
        self.space = config.space
        self._config = config
        self._devices = resolve(device)
        self._precision: Precision = precision
        self._announce = announce
        self._clips = dict(clips or {})
        self._named = frozenset(named)
        self._encoders: dict[tuple[Modality, int], Encoder] = {}
        self._lock = threading.Lock()

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the space has encoders for."""
        return tuple(self._config.encoders)

    @property
    def replicas(self) -> int:
        """How many devices the encoders run on, each with its own copy."""
        return len(self._devices)

    @property
    def device_kind(self) -> DeviceKind:
        """What those devices are."""
        return device_kind(self._devices[0])

    @property
    def lanes(self) -> list[int]:
        """Which replica each thread that encodes uses.

        A GPU has two such threads: while one waits for what it computes, the other copies and launches the next batch.
        """
        per_device = 2 if self._devices[0].startswith("cuda") else 1
        return list(range(self.replicas)) * per_device

    def encoder(self, modality: Modality, replica: int = 0) -> Encoder:
        """Return the encoder of a modality, on the first device or another.

        Raises:
            SpaceError: If the space has none for it.
            WeightsError: If its weights cannot be had.
        """
        found = self._encoders.get((modality, replica))
        if found is not None:  # whoever has its encoder does not wait for another's weights
            return found
        with self._lock:  # decoding threads ask too
            if (modality, replica) not in self._encoders:
                config = self.config_of(modality)
                backbone = self._backbone(modality, config, self._devices[replica])
                projection = self.projection(modality, backbone.dim)
                self._encoders[modality, replica] = ProjectedEncoder(self.space, backbone, projection)
            return self._encoders[modality, replica]

    @overload
    def encode(
        self,
        modality: Modality,
        items: OneItem,
        *,
        batch_size: int | None = None,
        progress: Callable[[int], None] | None = None,
        stats: Stats | None = None,
        on_error: None = None,
    ) -> Vector: ...
    @overload
    def encode(
        self,
        modality: Modality,
        items: Iterable[Any],
        *,
        batch_size: int | None = None,
        progress: Callable[[int], None] | None = None,
        stats: Stats | None = None,
        on_error: OnError | None = None,
    ) -> Vectors: ...
    def encode(
        self,
        modality: Modality,
        items: Any,
        *,
        batch_size: int | None = None,
        progress: Callable[[int], None] | None = None,
        stats: Stats | None = None,
        on_error: OnError | None = None,
    ) -> Vectors:
        """Encode items of one modality, or one item.

        Args:
            modality: "text", "image" or "audio".
            items: Strings for text; paths, bytes, PIL images or uint8 arrays (h, w, 3) for images; paths, bytes or
                pairs (waveform, rate in Hz) for audio. One of them, or any iterable of several.
            batch_size: Items that are loaded and encoded together; see `encoders.batching.encode`.
            progress: Called with the number of items done after each batch.
            stats: Where the stages count what they do.
            on_error: Called with the position of each item that cannot be decoded and the reason; it has no row then.

        Returns:
            Unit vectors, shape (n, d), float32, in the order of ``items``, without those of items that failed; of one
            item its vector, shape (d,).

        Raises:
            TypeError: If ``items`` is None or a mapping.
            ValueError: If there is an ``on_error`` for one item, which has to have a vector.
            SpaceError: If the space has no encoder for the modality.
            DecodeError: If an item cannot be decoded, and there is no ``on_error``.
        """
        encoders = [self.encoder(modality, replica) for replica in self.lanes]
        size = BATCH_ITEMS[self.device_kind][modality] if batch_size is None else batch_size
        return encode(encoders, items, batch_size=size, progress=progress, stats=stats, on_error=on_error)

    def example_texts(self, n: int) -> list[str]:
        """Return everyday words, at most n of them: those that the space has labels for, else those of LABELS_SPACE."""
        projections = [config.projection for config in self._config.encoders.values()]
        files = {p.file for p in projections if p.kind in ("centred", "labels") and p.file is not None}
        files = files or {file for file in space_folders()[LABELS_SPACE].glob("*.json") if file.name != CONFIG_FILE}
        words = {phrases[0] for file in files for phrases in read_labels(file).phrases.values() if phrases}
        ordered = sorted(words)
        return ordered[:: max(1, len(ordered) // n)][:n]

    @cached_property
    def relevance(self) -> Relevance | None:
        """How scores become probabilities; None if the space does not know.

        Raises:
            SpaceError: If its calibration cannot be read.
        """
        if self._config.folder is None:
            return None
        path = self._config.folder / CALIBRATION_FILE
        try:
            return read_relevance(path)
        except (OSError, ValueError) as error:
            raise SpaceError(f"{path} cannot be used: {error}") from error

    def pull(self) -> None:
        """Fetch and derive all that the space needs, so that it works offline from then on."""
        for modality in self.modalities:
            self.encoder(modality)

    def weights(self) -> list[Weights]:
        """Return the weights that the space's backbones need."""
        # open_clip keeps its own; a text model of one's own lies in the space's folder.
        known = [config for config in self._config.encoders.values() if config.revision is None]
        return [backbone_spec(config.backbone).weights for config in known]

    def config_of(self, modality: Modality) -> EncoderConfig:
        """Return what the space has for a modality.

        Raises:
            SpaceError: If it has nothing.
        """
        config = self._config.encoders.get(modality)
        if config is None:
            raise SpaceError(f"space {self.space} has no encoder for {modality}, only for {', '.join(self.modalities)}")
        return config

    def features_revision(self, modality: Modality) -> str:
        """Name what a modality's frozen features follow from: features that are kept are kept by it."""
        revision = self.config_of(modality).backbone_revision
        return revision if self._precision == "float32" else f"{revision}-{self._precision}"

    def backbone(self, modality: Modality, replica: int = 0) -> Backbone:
        """Load the frozen network of a modality, without its projection.

        Raises:
            SpaceError: If the space has none, or open_clip's weights are not those that the space was made for.
            WeightsError: If its weights cannot be had.
        """
        return self._backbone(modality, self.config_of(modality), self._devices[replica])

    def projection(self, modality: Modality, width: int) -> Projection:
        """Load the projection of a modality whose backbone gives features of a width.

        Raises:
            SpaceError: If the space has none, or its file does not fit.
        """
        own = self.config_of(modality)
        return build_projection(self._config, own, width, device=self._devices[0], announce=self._announce)

    def _backbone(self, modality: Modality, config: EncoderConfig, device: str) -> Backbone:
        if config.backbone.startswith(OPEN_CLIP):
            clip = self._clip(config.backbone)
            if clip.facts.revision != config.revision:
                raise SpaceError(
                    f"space {self.space} was made for revision {config.revision} of {config.backbone}, which is "
                    f"{clip.facts.revision} now: align it again"
                )
            return clip.backbone(modality, device=device, precision=self._precision)
        if config.backbone.startswith(TEXT_MODEL):
            return self._text_model(config, device)
        return build_backbone(config.backbone, device=device, precision=self._precision, announce=self._announce)

    def _text_model(self, config: EncoderConfig, device: str) -> Backbone:
        from trivium.encoders.text.own_models import revision_of

        folder = Path(config.backbone.removeprefix(TEXT_MODEL))
        if (found := revision_of(folder)) != config.revision:
            raise SpaceError(
                f"space {self.space} was made for revision {config.revision} of {folder}, which is {found} now: make "
                "the space again"
            )
        return build_backbone(config.backbone, device=device, precision=self._precision, announce=self._announce)

    def _clip(self, reference: str) -> "OpenClip":
        if reference not in self._clips:
            is_named = reference in self._named
            self._clips[reference] = _open_clip(reference, is_named=is_named, announce=self._announce)
        return self._clips[reference]


def load_space(
    name_or_folder: str | os.PathLike[str] = DEFAULT_SPACE,
    *,
    device: str = "cpu",
    precision: Precision = "float32",
    announce: Callable[[str], None] | None = None,
    is_named: bool = True,
) -> JointSpace:
    """Load a space that ships with Trivium, one of the user's, any folder with a ``space.json``, or one of open_clip.

    Weights are fetched and encoders built when they are first used.

    Args:
        name_or_folder: A name that `space_folders` knows, a path, or a model of open_clip's: what
            `encoders.clip.reference` has, ``open-clip:MODEL/PRETRAINED`` among others.
        device: Where the networks run: see `encoders.networks.loading`.
        precision: ``int8`` is faster for texts on a CPU, and less exact (docs/benchmarks.md).
        announce: Called with one line before each download.
        is_named: The user named it. Else it stands in a file from elsewhere: a known name, an absolute folder, or a
            model of open_clip's for which nothing is fetched.

    Raises:
        SpaceError: If there is no such space, or its folder is not valid.
        ValueError: If the name is empty.
        WeightsError: If open_clip has no such model, or its weights cannot be had.
    """
    if is_named:  # what only a collection names is refused below, by the collection's fault
        path_of(name_or_folder, "name_or_folder")
    if str(name_or_folder).startswith(OPEN_CLIP):
        clip = _open_clip(str(name_or_folder), is_named=is_named, announce=announce)
        return _open_clip_space(clip, device=device, precision=precision, announce=announce)
    known = space_folders()
    if not is_named and name_or_folder not in known and not _is_absolute(name_or_folder):
        raise SpaceError(
            f"{shown(name_or_folder)} stands for the space, and is none here: known are {', '.join(known)}. Name the "
            "space yourself (--space)"
        )
    folder = known.get(str(name_or_folder), Path(name_or_folder))
    if not (folder / CONFIG_FILE).is_file():
        raise SpaceError(
            f"no space '{name_or_folder}': known are {', '.join(known)}; a folder must hold a {CONFIG_FILE}"
        )
    source = str(name_or_folder) if str(name_or_folder) in known else str(folder.absolute())
    return JointSpace(read_space_config(folder), source=source, device=device, precision=precision, announce=announce)


def space_of(
    encoders: Mapping[Modality, EncoderConfig],
    *,
    name: str,
    dim: int,
    device: str = "cpu",
    announce: Callable[[str], None] | None = None,
    named: Collection[str] = (),
) -> JointSpace:
    """Put encoders together whose own projections may lie in different spaces, or in none: what is to be aligned.

    Raises:
        SpaceError: If a backbone is not known, or of another modality.
    """
    encoders = {modality: _with_own_revision(encoder) for modality, encoder in encoders.items()}
    for modality, encoder in encoders.items():
        if encoder.revision is None:
            try:
                known = backbone_spec(encoder.backbone)
            except ValueError as error:
                raise SpaceError(str(error)) from error
            if known.modality != modality:
                raise SpaceError(f"backbone '{encoder.backbone}' is for {known.modality}, not for {modality}")
    space = Space(name=name, dim=dim, revision="")
    config = SpaceConfig(space=space, description="", encoders=encoders)
    return JointSpace(config, source=name, device=device, announce=announce, named=named)


def _with_own_revision(encoder: EncoderConfig) -> EncoderConfig:
    """Pin a text model that was named by its folder alone."""
    if not encoder.backbone.startswith(TEXT_MODEL) or encoder.revision is not None:
        return encoder
    from trivium.encoders.text.own_models import revision_of

    folder = Path(encoder.backbone.removeprefix(TEXT_MODEL)).absolute()
    return replace(encoder, backbone=f"{TEXT_MODEL}{folder}", revision=revision_of(folder))


def _is_absolute(folder: object) -> bool:
    """Whether a file from elsewhere may name this folder: a path of this machine, and of no other in the network."""
    return isinstance(folder, str) and os.path.isabs(folder) and folder[:2] not in ("//", "\\\\") and "\0" not in folder


def _open_clip(reference: str, *, is_named: bool, announce: Callable[[str], None] | None) -> "OpenClip":
    from trivium.encoders.clip.model import OpenClip

    return OpenClip(reference, announce=announce, is_named=is_named)


def _open_clip_space(
    clip: "OpenClip", *, device: str, precision: Precision, announce: Callable[[str], None] | None
) -> JointSpace:
    projection = ProjectionConfig(kind="identity")
    entry = EncoderConfig(backbone=clip.reference, projection=projection, revision=clip.facts.revision)
    config = SpaceConfig(
        space=Space(name=clip.facts.space_name, dim=clip.facts.dim, revision=clip.facts.revision),
        description=f"open_clip's {clip.facts.name} with {clip.facts.pretrained}",
        encoders=dict.fromkeys(clip.facts.modalities, entry),
    )
    return JointSpace(
        config,
        source=clip.reference,
        device=device,
        precision=precision,
        announce=announce,
        clips={clip.reference: clip},
    )


def space_folders() -> dict[str, Path]:
    """Name and folder of each space found: those that ship first, then the user's."""
    own = Path(platformdirs.user_data_dir("trivium", appauthor=False)) / "spaces"
    found: dict[str, Path] = {}
    for root in (Path(__file__).parents[2] / "spaces", own):
        for config in sorted(root.glob(f"*/{CONFIG_FILE}")):
            found.setdefault(config.parent.name, config.parent)
    return found
