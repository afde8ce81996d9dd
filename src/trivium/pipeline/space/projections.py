"""The encoders of a space: a frozen network, and the projection that the space's folder has for its features."""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Backbone, Features, Modality, Prepared, Space, Vectors, unit_rows
from trivium.encoders.batching import encode
from trivium.encoders.files.foreign import ForeignFileError, shown
from trivium.encoders.files.tensors import open_tensors
from trivium.encoders.files.user_cache import cache_folder, read_sealed, write_sealed
from trivium.encoders.registry import backbone_spec, build_backbone
from trivium.fusion.projections.head import Head, check_shapes
from trivium.fusion.projections.plain import (
    CentredProjection,
    IdentityProjection,
    LabelBridge,
    LinearProjection,
    Projection,
)
from trivium.pipeline.space.config import (
    MAX_PROJECTION_BYTES,
    EncoderConfig,
    Labels,
    ProjectionConfig,
    SpaceConfig,
    SpaceError,
    read_labels,
)

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]  # of tensors, by name


class ProjectedEncoder:
    """A backbone and the projection that puts its features into a space."""

    def __init__(self, space: Space, backbone: Backbone, projection: Projection) -> None:
        self.space = space
        self.backbone = backbone
        self.projection = projection
        # What goes into the network is the backbone's own matter.
        self.modality: Modality = backbone.modality
        self.side, self.has_windows = backbone.side, backbone.has_windows
        self.prepare, self.prepare_all = backbone.prepare, backbone.prepare_all
        self.takes_file, self.prepare_file = backbone.takes_file, backbone.prepare_file
        self.passages, self.blocks = backbone.passages, backbone.blocks

    def embed(self, batch: Sequence[Prepared], /) -> Vectors:
        """Return one unit vector per prepared item, shape (n, d)."""
        return self._projected(self.backbone.features(batch))

    def embed_windows(self, blocks: Iterable[Prepared], seconds: Sequence[tuple[float, float]], /) -> Vectors:
        """Return the vector of a whole sound and of each window, shape (1 + windows, d)."""
        features = Features.joined([self.backbone.block_features([part]) for part in blocks])
        count = len(features.pooled)
        return self._projected(features.means([(0, count), *self.backbone.windows(count, seconds)]))

    def _projected(self, features: Features) -> Vectors:
        """Project features, whatever a space's folder says of how.

        Raises:
            SpaceError: If the projection does not fit the backbone, or gives what is no vector.
        """
        try:
            with np.errstate(all="ignore"):  # numbers that are too large are told below
                vectors = self.projection(features)
        except ValueError as error:
            raise SpaceError(
                f"the projection of {self.modality} in space {self.space} does not fit: {error}"
            ) from error
        if not np.isfinite(vectors).all():
            raise SpaceError(f"the projection of {self.modality} in space {self.space} gives NaN or infinity")
        return vectors


def build_projection(
    config: SpaceConfig,
    own: EncoderConfig,
    width: int,
    *,
    device: str = "cpu",
    announce: Callable[[str], None] | None = None,
) -> Projection:
    """Make an encoder's projection for features of a width.

    Args:
        config: The space.
        own: One of its encoders.
        width: Numbers of a pooled feature.
        device: Where the words of labels are encoded, if nobody did so before.
        announce: Told of that.

    Raises:
        SpaceError: If the projection's file cannot be read or does not fit.
    """
    space, projection = config.space, own.projection
    if projection.kind == "identity" or projection.file is None:
        _check_width(own, width, space.dim)
        return IdentityProjection()
    if projection.kind == "head":
        return _head(projection, projection.file, space)
    if projection.kind == "linear":
        return _linear(own, projection.file, width, space)
    labels = read_labels(projection.file)
    vectors = _label_vectors(config, labels, device=device, announce=announce)
    mean = np.mean(list(vectors.values()), axis=0)
    if projection.kind == "centred":
        _check_width(own, width, space.dim)
        return CentredProjection(mean)
    heads = {head: np.stack([vectors[name] - mean for name in classes]) for head, classes in labels.heads.items()}
    return LabelBridge(heads, temperature=projection.temperature)


def _head(projection: ProjectionConfig, file: Path, space: Space) -> Head:
    def check(shapes: Shapes) -> None:
        dim = check_shapes(shapes)
        if dim != space.dim:
            raise SpaceError(f"{file} gives vectors of width {dim}, the space has {space.dim}")

    tensors = _load_tensors(file, check)
    try:
        return Head(projection.inputs, tensors)
    except ValueError as error:
        raise SpaceError(f"{file} is no head: {error}") from error


def _linear(own: EncoderConfig, file: Path, width: int, space: Space) -> LinearProjection:
    def check(shapes: Shapes) -> None:
        if "weight" not in shapes:
            raise ValueError(f"it must hold a tensor 'weight', it has {', '.join(map(shown, [*shapes][:5])) or 'none'}")
        if len(shapes["weight"]) != 2 or shapes["weight"][0] != width:
            raise ValueError(f"its weight must have shape ({width}, {space.dim}), got {shapes['weight']}")
        _check_width(own, shapes["weight"][1], space.dim)

    tensors = _load_tensors(file, check)
    try:
        return LinearProjection(tensors["weight"], tensors.get("bias"))
    except ValueError as error:
        raise SpaceError(f"{file} is no linear map: {error}") from error


def _label_vectors(
    config: SpaceConfig, labels: Labels, *, device: str, announce: Callable[[str], None] | None
) -> dict[str, Vectors]:
    """Return each class's vector: the mean of its words' text vectors, length 1; kept in the cache."""
    text = config.encoders.get("text")
    if text is None:
        raise SpaceError(f"space {config.space} has labels, but no text encoder to give them vectors")
    if text.revision is not None:
        raise SpaceError(f"space {config.space} has labels, which need a text encoder of Trivium's: {text.backbone}")
    names = sorted(labels.phrases)
    words = sorted({word for name in names for word in labels.phrases[name]}, key=lambda word: (len(word), word))
    revision = backbone_spec(text.backbone).revision
    key = hashlib.sha256(json.dumps([revision, labels.phrases], sort_keys=True).encode()).hexdigest()[:32]
    cached = cache_folder() / "labels" / f"{key}.npy"
    matrix = _load_matrix(cached, rows=len(names), dim=config.space.dim)
    if matrix is None:
        if announce is not None:
            announce(f"encoding {len(words):,} label words (once)")
        # By the backbone alone: the text projection may itself depend on these vectors.
        backbone = build_backbone(text.backbone, device=device, announce=announce)
        plain = ProjectedEncoder(config.space, backbone, IdentityProjection())
        vector_of = dict(zip(words, encode(plain, words, batch_size=128), strict=True))
        matrix = unit_rows(
            np.stack([np.mean([vector_of[word] for word in labels.phrases[name]], axis=0) for name in names])
        )
        _save_matrix(cached, matrix)
    return dict(zip(names, matrix, strict=True))


def _check_width(config: EncoderConfig, width: int, dim: int) -> None:
    if width != dim:
        raise SpaceError(
            f"{config.backbone} with a projection of kind '{config.projection.kind}' gives vectors of width {width}, "
            f"the space has {dim}"
        )


def _load_tensors(file: Path, check: Callable[[Shapes], None]) -> dict[str, NDArray[np.float32]]:
    """Read tensors as float32, whose shapes were checked first: before that, nothing of them is in memory."""
    try:
        with open_tensors(file, max_bytes=MAX_PROJECTION_BYTES) as tensors:
            check(tensors.shapes)
            with np.errstate(over="ignore"):  # infinity is told of by who takes them
                return {name: tensor.astype(np.float32) for name, tensor in tensors.read().items()}
    except ForeignFileError as error:
        raise SpaceError(str(error)) from error
    except (OSError, ValueError) as error:
        raise SpaceError(f"{file} cannot be used: {error}") from error


def _load_matrix(path: Path, *, rows: int, dim: int) -> Vectors | None:
    """Return what was kept; None if it is not there, or not as it was written."""
    if (content := read_sealed(path)) is None:
        return None
    try:
        matrix: Vectors = np.load(io.BytesIO(content), allow_pickle=False)
    except ValueError:
        return None
    return matrix if matrix.shape == (rows, dim) and np.isfinite(matrix).all() else None


def _save_matrix(path: Path, matrix: Vectors) -> None:
    content = io.BytesIO()
    np.save(content, matrix)
    write_sealed(path, content.getvalue())
