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

# Texts and files are read and encoded by the pipeline, which knows this package and not the other way round: the names
# are looked up when a user asks for them (docs/decisions/0007-fused-estimators.md).
_LATE = {
    "BlockClassifier": "trivium.fusion.estimators",
    "BlockRegressor": "trivium.fusion.estimators",
    "FusedClassifier": "trivium.pipeline.fused.classifier",
    "BlockTransferClassifier": "trivium.fusion.transfer",
    "FusedRegressor": "trivium.pipeline.fused.classifier",
    "FusedFeatures": "trivium.pipeline.fused.features",
    "ImaginedFeatures": "trivium.pipeline.fused.imagined",
    "TransferClassifier": "trivium.pipeline.fused.transfer",
}
_NEEDS = ("sklearn", "scipy")

__all__ = [
    "BlockClassifier",
    "BlockRegressor",
    "BlockTransferClassifier",
    "CentredProjection",
    "FUSIONS",
    "IdentityProjection",
    "LabelBridge",
    "LinearProjection",
    "Projection",
    "build_fusion",
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
