"""One modality in, unit vectors of one space out. Importing this package does not import torch."""

from trivium.encoders.base import (
    MODALITIES,
    Backbone,
    DecodeError,
    Encoder,
    Features,
    Modality,
    Space,
    Vectors,
    WeightsError,
    unit_rows,
)
from trivium.encoders.batching import encode
from trivium.encoders.registry import BACKBONES, build_backbone

__all__ = [
    "BACKBONES",
    "MODALITIES",
    "Backbone",
    "DecodeError",
    "Encoder",
    "Features",
    "Modality",
    "Space",
    "Vectors",
    "WeightsError",
    "build_backbone",
    "encode",
    "unit_rows",
]
