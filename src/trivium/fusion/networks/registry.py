"""Fusions by name. Each builder imports its module when it is called, so that listing them loads no torch."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

Widths = Mapping[str, int]


def build_fusion(name: str, widths: Widths, *, dim: int) -> "nn.Module":
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
    return FUSIONS[name](widths, dim)


def _concatenation(widths: Widths, dim: int) -> "nn.Module":
    from trivium.fusion.networks.concatenation import Concatenation

    return Concatenation(widths, dim=dim)


def _gated_units(widths: Widths, dim: int) -> "nn.Module":
    from trivium.fusion.networks.gated_units import GatedUnits

    return GatedUnits(widths, dim=dim)


def _low_rank_tensor(widths: Widths, dim: int) -> "nn.Module":
    from trivium.fusion.networks.low_rank_tensor import LowRankTensor

    return LowRankTensor(widths, dim=dim)


def _self_attention(widths: Widths, dim: int) -> "nn.Module":
    from trivium.fusion.networks.self_attention import SelfAttention

    return SelfAttention(widths, dim=dim)


def _token_encoder(widths: Widths, dim: int) -> "nn.Module":
    from trivium.fusion.networks.token_encoder import TokenEncoder

    return TokenEncoder(widths, dim=dim)


def _bottleneck(widths: Widths, dim: int) -> "nn.Module":
    from trivium.fusion.networks.bottleneck import Bottleneck

    return Bottleneck(widths, dim=dim)


def _cross_attention(widths: Widths, dim: int) -> "nn.Module":
    from trivium.fusion.networks.cross_attention import CrossAttention

    return CrossAttention(widths, dim=dim)


def _late_average(widths: Widths, dim: int) -> "nn.Module":
    from trivium.fusion.networks.late_average import LateAverage

    return LateAverage(widths, dim=dim)


def _late_stack(widths: Widths, dim: int) -> "nn.Module":
    from trivium.fusion.networks.late_stack import LateStack

    return LateStack(widths, dim=dim)


# Those that take modalities of different widths; `weighted_mean.WeightedMean` needs one width.
FUSIONS: Mapping[str, Callable[[Widths, int], "nn.Module"]] = {
    "concatenation": _concatenation,
    "gated-units": _gated_units,
    "low-rank-tensor": _low_rank_tensor,
    "self-attention": _self_attention,
    "token-encoder": _token_encoder,
    "bottleneck": _bottleneck,
    "cross-attention": _cross_attention,
    "late-average": _late_average,
    "late-stack": _late_stack,
}
LATE = ("late-average", "late-stack")  # what comes out are probabilities of classes
