"""Bringing modalities together: projections into one space, fusions of several modalities, classifiers over them.

What needs torch or scikit-learn is imported when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from trivium.fusion.combination import weighted_sum
from trivium.fusion.networks.registry import FUSIONS, build_fusion
from trivium.fusion.projections.plain import (
    CentredProjection,
    IdentityProjection,
    LabelBridge,
    LinearProjection,
    Projection,
)

if TYPE_CHECKING:
    from trivium.fusion.estimators import BlockClassifier, BlockRegressor
    from trivium.fusion.transfer import BlockTransferClassifier
    from trivium.pipeline.features.frames import MissingModalityWarning
    from trivium.pipeline.fused.classifier import FusedClassifier, FusedRegressor
    from trivium.pipeline.fused.features import FusedFeatures
    from trivium.pipeline.fused.imagined import ImaginedFeatures
    from trivium.pipeline.fused.model_folder import ModelError
    from trivium.pipeline.fused.table import read_frame
    from trivium.pipeline.fused.transfer import TransferClassifier

# Texts and files are read and encoded by the pipeline, which knows this package and not the other way round: the names
# are looked up when a user asks for them (docs/decisions/0007-fused-estimators.md).
_LATE = {
    "BlockClassifier": "trivium.fusion.estimators",
    "BlockRegressor": "trivium.fusion.estimators",
    "BlockTransferClassifier": "trivium.fusion.transfer",
    "FusedClassifier": "trivium.pipeline.fused.classifier",
    "FusedFeatures": "trivium.pipeline.fused.features",
    "FusedRegressor": "trivium.pipeline.fused.classifier",
    "ImaginedFeatures": "trivium.pipeline.fused.imagined",
    "MissingModalityWarning": "trivium.pipeline.features.frames",
    "ModelError": "trivium.pipeline.fused.model_folder",
    "TransferClassifier": "trivium.pipeline.fused.transfer",
    "read_frame": "trivium.pipeline.fused.table",
}
_NEEDS = ("sklearn", "scipy")

__all__ = [
    "BlockClassifier",
    "BlockRegressor",
    "BlockTransferClassifier",
    "CentredProjection",
    "FUSIONS",
    "FusedClassifier",
    "FusedFeatures",
    "FusedRegressor",
    "IdentityProjection",
    "ImaginedFeatures",
    "LabelBridge",
    "LinearProjection",
    "MissingModalityWarning",
    "ModelError",
    "Projection",
    "TransferClassifier",
    "build_fusion",
    "read_frame",
    "weighted_sum",
]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'trivium.fusion' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_LATE[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDS:
            raise
        raise ImportError(f"trivium.fusion.{name} needs scikit-learn: run pip install 'trivium[learn]'") from error
