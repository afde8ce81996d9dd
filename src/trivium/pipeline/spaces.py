"""Spaces: frozen encoders of several modalities and the projections that bring them together."""

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs

import trivium
from trivium.encoders.base import (
    Backbone,
    Encoder,
    Features,
    Modality,
    Passage,
    Prepared,
    Space,
    Vectors,
    unit_rows,
)
from trivium.encoders.batching import BATCH_ITEMS, OnError, encode
from trivium.encoders.devices import resolve
from trivium.encoders.engine import Stats
from trivium.encoders.graphs import Precision
from trivium.encoders.networks import DeviceKind, device_kind
from trivium.encoders.registry import backbone_spec, build_backbone
from trivium.encoders.text_shapes import TEXT_MODEL
from trivium.encoders.weights import Weights, cache_folder
from trivium.fusion.head import Head
from trivium.fusion.labels import LabelBridge
from trivium.fusion.projection import CentredProjection, IdentityProjection, LinearProjection, Projection
from trivium.pipeline.relevance import Relevance, read_relevance
from trivium.pipeline.space_config import (
    CALIBRATION_FILE,
    CONFIG_FILE,
    OPEN_CLIP,
    EncoderConfig,
    Labels,
    ProjectionConfig,
    SpaceConfig,
    SpaceError,
    read_labels,
    read_space_config,
)

if TYPE_CHECKING:
    from trivium.encoders.open_clip import OpenClip

DEFAULT_SPACE, LABELS_SPACE = "trivium-base", "trivium-labels"


class ProjectedEncoder:
    """A backbone and the projection that puts its features into a space."""

    def __init__(self, space: Space, backbone: Backbone, projection: Projection) -> None:
        self.modality: Modality = backbone.modality
        self.space = space
        self.side: int | None = backbone.side
        self.backbone = backbone
        self.projection = projection

    def prepare(self, item: Any, /) -> Prepared:
        """Decode one item; see the backbone's own ``prepare`` for what it takes."""
        return self.backbone.prepare(item)

    def embed(self, batch: Sequence[Prepared], /) -> Vectors:
        """Return one unit vector per prepared item, shape (n, d)."""
        return self.projection(self.backbone.features(batch))

    def prepare_all(self, items: Sequence[Any], /) -> list[Prepared]:
        """Prepare many items in one call."""
        return self.backbone.prepare_all(items)

    def takes_file(self, data: bytes, /) -> bool:
        """Whether a file is decoded on the device."""
        return self.backbone.takes_file(data)

    def prepare_file(self, content: Any, /) -> Prepared:
        """Prepare what is left of a file to prepare."""
        return self.backbone.prepare_file(content)

    def passages(self, text: str, /) -> Sequence[Passage]:
        """Cut a long text into passages."""
        return self.backbone.passages(text)

    def blocks(self, sound: Any, /) -> Iterator[Prepared]:
        """Cut a sound into blocks."""
        return self.backbone.blocks(sound)

    def embed_windows(self, blocks: Iterable[Prepared], seconds: Sequence[tuple[float, float]], /) -> Vectors:
        """Return the vector of a whole sound and of each window, shape (1 + windows, d)."""
        features = Features.joined([self.backbone.block_features([part]) for part in blocks])
        count = len(features.pooled)
        return self.projection(features.means([(0, count), *self.backbone.windows(count, seconds)]))


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
    ) -> None:
        """Prepare a space.

        Args:
            config: What it is made of.
            source: What `load_space` takes.
            device: See `load_space`.
            precision: See `load_space`.
            announce: Called with one line before each download.
            clips: open_clip's models that are loaded already, by reference.
        """
        self.source = source
        self.space = config.space
        self._config = config
        self._devices = resolve(device)
        self._precision: Precision = precision
        self._announce = announce
        self._clips = dict(clips or {})
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
        with self._lock:  # decoding threads ask too
            if (modality, replica) not in self._encoders:
                config = self.config_of(modality)
                backbone = self._backbone(modality, config, self._devices[replica])
                projection = self._projection(config, backbone.dim)
                self._encoders[modality, replica] = ProjectedEncoder(self.space, backbone, projection)
            return self._encoders[modality, replica]

    def encode(
        self,
        modality: Modality,
        items: Iterable[Any],
        *,
        batch_size: int | None = None,
        progress: Callable[[int], None] | None = None,
        stats: Stats | None = None,
        on_error: OnError | None = None,
    ) -> Vectors:
        """Encode items of one modality.

        Args:
            modality: "text", "image" or "audio".
            items: Strings for text; paths, bytes, PIL images or uint8 arrays (h, w, 3) for images; paths, bytes or
                pairs (waveform, rate in Hz) for audio.
            batch_size: Items that are loaded and encoded together; see `encoders.batching.encode`.
            progress: Called with the number of items done after each batch.
            stats: Where the stages count what they do.
            on_error: Called with the position of each item that cannot be decoded and the reason; it has no row then.

        Returns:
            Unit vectors, shape (n, d), float32, in the order of ``items``, without those of items that failed.

        Raises:
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
        return self._projection(self.config_of(modality), width)

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
        from trivium.encoders.text_model import revision_of

        folder = Path(config.backbone.removeprefix(TEXT_MODEL))
        if (found := revision_of(folder)) != config.revision:
            raise SpaceError(
                f"space {self.space} was made for revision {config.revision} of {folder}, which is {found} now: make "
                "the space again"
            )
        return build_backbone(config.backbone, device=device, precision=self._precision, announce=self._announce)

    def _clip(self, reference: str) -> "OpenClip":
        from trivium.encoders.open_clip import OpenClip

        if reference not in self._clips:
            self._clips[reference] = OpenClip(reference, announce=self._announce)
        return self._clips[reference]

    def _projection(self, config: EncoderConfig, width: int) -> Projection:
        projection = config.projection
        if projection.kind == "identity" or projection.file is None:
            _check_width(config, width, self.space.dim)
            return IdentityProjection()
        if projection.kind == "head":
            return self._head(projection, projection.file)
        if projection.kind == "linear":
            tensors = _load_tensors(projection.file)
            if "weight" not in tensors:
                raise SpaceError(f"{projection.file} must hold a tensor 'weight', it has {', '.join(tensors)}")
            weight = tensors["weight"].astype(np.float32)
            _check_width(config, weight.shape[-1], self.space.dim)
            return LinearProjection(weight, tensors.get("bias"))
        labels = read_labels(projection.file)
        vectors = self._label_vectors(labels)
        mean = np.mean(list(vectors.values()), axis=0)
        if projection.kind == "centred":
            _check_width(config, width, self.space.dim)
            return CentredProjection(mean)
        heads = {head: np.stack([vectors[name] - mean for name in classes]) for head, classes in labels.heads.items()}
        return LabelBridge(heads, temperature=projection.temperature)

    def _head(self, projection: ProjectionConfig, file: Path) -> Head:
        try:
            head = Head(projection.inputs, {name: t.astype(np.float32) for name, t in _load_tensors(file).items()})
        except ValueError as error:
            raise SpaceError(f"{file} is no head: {error}") from error
        if head.dim != self.space.dim:
            raise SpaceError(f"{file} gives vectors of width {head.dim}, the space has {self.space.dim}")
        return head

    def _label_vectors(self, labels: Labels) -> dict[str, Vectors]:
        """Return each class's vector: the mean of its words' text vectors, length 1; kept in the cache."""
        text = self._config.encoders.get("text")
        if text is None:
            raise SpaceError(f"space {self.space} has labels, but no text encoder to give them vectors")
        names = sorted(labels.phrases)
        words = sorted({word for name in names for word in labels.phrases[name]}, key=lambda word: (len(word), word))
        revision = backbone_spec(text.backbone).revision
        key = hashlib.sha256(json.dumps([revision, labels.phrases], sort_keys=True).encode()).hexdigest()[:32]
        cached = cache_folder() / "labels" / f"{key}.npy"
        matrix = _load_matrix(cached, rows=len(names), dim=self.space.dim)
        if matrix is None:
            if self._announce is not None:
                self._announce(f"encoding {len(words):,} label words (once)")
            # By the backbone alone: the text projection may itself depend on these vectors.
            backbone = build_backbone(text.backbone, device=self._devices[0], announce=self._announce)
            plain = ProjectedEncoder(self.space, backbone, IdentityProjection())
            vector_of = dict(zip(words, encode(plain, words, batch_size=128), strict=True))
            matrix = unit_rows(
                np.stack([np.mean([vector_of[word] for word in labels.phrases[name]], axis=0) for name in names])
            )
            _save_matrix(cached, matrix)
        return dict(zip(names, matrix, strict=True))


def load_space(
    name_or_folder: str | os.PathLike[str] = DEFAULT_SPACE,
    *,
    device: str = "cpu",
    precision: Precision = "float32",
    announce: Callable[[str], None] | None = None,
) -> JointSpace:
    """Load a space that ships with Trivium, one of the user's, any folder with a ``space.json``, or one of open_clip.

    Weights are fetched and encoders built when they are first used.

    Args:
        name_or_folder: A name that `space_folders` knows, a path, or a model of open_clip's: what
            `encoders.clip_source` takes, ``open-clip:MODEL/PRETRAINED`` among others.
        device: Where the networks run: see `encoders.networks.load_network`.
        precision: ``int8`` is faster for texts on a CPU, and less exact (docs/benchmarks.md).
        announce: Called with one line before each download.

    Raises:
        SpaceError: If there is no such space, or its folder is not valid.
        WeightsError: If open_clip has no such model, or its weights cannot be had.
    """
    if str(name_or_folder).startswith(OPEN_CLIP):
        return _open_clip_space(str(name_or_folder), device=device, precision=precision, announce=announce)
    known = space_folders()
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
    return JointSpace(config, source=name, device=device, announce=announce)


def _with_own_revision(encoder: EncoderConfig) -> EncoderConfig:
    """Pin a text model that was named by its folder alone."""
    if not encoder.backbone.startswith(TEXT_MODEL) or encoder.revision is not None:
        return encoder
    from trivium.encoders.text_model import revision_of

    folder = Path(encoder.backbone.removeprefix(TEXT_MODEL)).absolute()
    return replace(encoder, backbone=f"{TEXT_MODEL}{folder}", revision=revision_of(folder))


def _open_clip_space(
    reference: str, *, device: str, precision: Precision, announce: Callable[[str], None] | None
) -> JointSpace:
    from trivium.encoders.open_clip import OpenClip

    clip = OpenClip(reference, announce=announce)
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
    for root in (Path(trivium.__file__).parent / "spaces", own):
        for config in sorted(root.glob(f"*/{CONFIG_FILE}")):
            found.setdefault(config.parent.name, config.parent)
    return found


def _check_width(config: EncoderConfig, width: int, dim: int) -> None:
    if width != dim:
        raise SpaceError(
            f"{config.backbone} with a projection of kind '{config.projection.kind}' gives vectors of width {width}, "
            f"the space has {dim}"
        )


def _load_tensors(file: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise SpaceError(f"{file} cannot be read: {error}") from error


def _load_matrix(path: Path, *, rows: int, dim: int) -> Vectors | None:
    try:
        matrix: Vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return matrix if matrix.shape == (rows, dim) and np.isfinite(matrix).all() else None


def _save_matrix(path: Path, matrix: Vectors) -> None:
    """Write whole or not at all; another process may do the same at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npy", delete=False) as file:
        try:
            np.save(file, matrix)
            file.flush()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
