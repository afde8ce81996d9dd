"""The backbones by name. Building one fetches its weights if need be and imports its torch module only then."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trivium.encoders.base import Backbone, Modality
from trivium.encoders.weights import WEIGHTS, Weights, fetch


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """What is known of a backbone before it is loaded."""

    modality: Modality
    dim: int  # width of the pooled features
    weights: Weights
    preprocessing: str  # change it with anything that changes a prepared item
    build: Callable[[Path, str], Backbone]  # (folder of weights, device)

    @property
    def revision(self) -> str:
        """Changes whenever the features of some item may change."""
        return f"{self.weights.name}-{self.weights.revision}-{self.preprocessing}"


def _minilm(folder: Path, device: str) -> Backbone:
    from trivium.encoders.text import MiniLM

    return MiniLM(folder, device=device)


def _efficientnet_lite0(folder: Path, device: str) -> Backbone:
    from trivium.encoders.image import EfficientNetLite0

    return EfficientNetLite0(folder, device=device)


def _aisfx(folder: Path, device: str) -> Backbone:
    from trivium.encoders.audio import AiSFX

    return AiSFX(folder, device=device)


BACKBONES: dict[str, BackboneSpec] = {
    "minilm-l6": BackboneSpec(
        modality="text", dim=384, weights=WEIGHTS["minilm-l6"], preprocessing="tokens256-1", build=_minilm
    ),
    "efficientnet-lite0": BackboneSpec(
        modality="image",
        dim=1280,
        weights=WEIGHTS["efficientnet-lite0"],
        preprocessing="squeeze224-1",
        build=_efficientnet_lite0,
    ),
    "aisfx": BackboneSpec(
        modality="audio", dim=512, weights=WEIGHTS["aisfx"], preprocessing="logmel96-peak0.2-1", build=_aisfx
    ),
}


def build_backbone(name: str, *, device: str = "cpu", announce: Callable[[str], None] | None = None) -> Backbone:
    """Load a backbone, fetching its weights on first use.

    Raises:
        ValueError: If there is no backbone of that name.
        WeightsError: If its weights cannot be had.
    """
    spec = backbone_spec(name)
    return spec.build(fetch(spec.weights, announce=announce), device)


def backbone_spec(name: str) -> BackboneSpec:
    """Look a backbone up; the message of the ValueError lists the known ones."""
    try:
        return BACKBONES[name]
    except KeyError:
        raise ValueError(f"unknown backbone '{name}', known are: {', '.join(sorted(BACKBONES))}") from None
