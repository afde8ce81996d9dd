"""Fusions by name. Their modules are imported when one is built, so that listing them loads no torch."""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

VECTORS, ATTENTION = "trivium.fusion.networks.vectors", "trivium.fusion.networks.attention"
FUSIONS: Mapping[str, tuple[str, str]] = {  # name -> module and class
    "concatenation": (VECTORS, "Concatenation"),
    "gated-units": (VECTORS, "GatedUnits"),
    "low-rank-tensor": (VECTORS, "LowRankTensor"),
    "self-attention": (ATTENTION, "SelfAttentionFusion"),
    "token-encoder": (ATTENTION, "TokenEncoder"),
    "bottleneck": (ATTENTION, "Bottleneck"),
    "cross-attention": (ATTENTION, "CrossAttention"),
    "late-average": (VECTORS, "LateAverage"),
    "late-stack": (VECTORS, "LateStack"),
}
LATE = ("late-average", "late-stack")  # what comes out are probabilities of classes


def build_fusion(name: str, widths: Mapping[str, int], *, dim: int) -> "nn.Module":
    """Build a fusion of vectors with its usual settings, of random weights.

    Args:
        name: One of `FUSIONS`.
        widths: Of the modalities.
        dim: Numbers of a fused vector; of "late-average" and "late-stack" it is the number of classes.

    Raises:
        ValueError: If the name is not known, or a width or ``dim`` does not fit.
    """
    if name not in FUSIONS:
        raise ValueError(f"no fusion '{name}': known are {', '.join(FUSIONS)}")
    module, of = FUSIONS[name]
    made: nn.Module = getattr(importlib.import_module(module), of)(widths, dim=dim)
    return made
