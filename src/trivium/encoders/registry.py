"""The backbones by name. Building one fetches its weights if need be and imports its torch module only then."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trivium.encoders.base import IMAGE_LAYERS, TEXT_LAYERS, Backbone, Modality
from trivium.encoders.networks.contract import Architecture, Network, Precision, device_kind
from trivium.encoders.networks.loading import load_network
from trivium.encoders.networks.weights import WEIGHTS, Weights, fetch, fetch_checked
from trivium.encoders.text.shapes import TEXT_MODEL

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """What is known of a backbone before it is loaded."""

    modality: Modality
    dim: int  # width of the pooled features
    weights: Weights
    preprocessing: str  # change it with anything that changes a prepared item
    architecture: Callable[[Path], Architecture]  # of the folder of weights
    build: Callable[[Path, Network], Backbone]
    gpu_architecture: Callable[[Path], Architecture] | None = None  # where a GPU does more of the work

    @property
    def revision(self) -> str:
        """Changes whenever the features of some item may move by more than a cosine of 0.999."""
        return f"{self.weights.name}-{self.weights.revision}-{self.preprocessing}"


def _minilm(folder: Path) -> Architecture:
    def build() -> "torch.nn.Module":
        from trivium.encoders.text.transformer import build_minilm

        return build_minilm(folder)

    axes = {0: "n", 1: "t"}
    return Architecture(
        name=folder.name,
        build=build,
        inputs={"tokens": axes, "mask": axes},
        outputs=["pooled", *TEXT_LAYERS],
        examples=lambda: [
            np.array([[101, 2003, 2023, 102], [101, 102, 0, 0]]),
            np.array([[1, 1, 1, 1], [1, 1, 0, 0]]),
        ],
        longest=256,
    )


def _efficientnet_lite0(folder: Path) -> Architecture:
    def build() -> "torch.nn.Module":
        from trivium.encoders.image.efficientnet import build_efficientnet_lite0

        return build_efficientnet_lite0(folder)

    def examples() -> list[np.ndarray]:
        return [np.random.default_rng(0).integers(0, 256, (2, 3, 224, 224), np.uint8)]

    return Architecture(
        name=folder.name,
        build=build,
        inputs={"pixels": {0: "n"}},
        outputs=["pooled", "imagenet", *IMAGE_LAYERS],
        examples=examples,
    )


def _aisfx(folder: Path) -> Architecture:
    from trivium.encoders.audio.aisfx import build_aisfx
    from trivium.encoders.networks.conversions import AISFX_HEADS

    return Architecture(
        name=folder.name,
        build=lambda: build_aisfx(folder),
        inputs={"log_mel": {0: "n"}},
        outputs=["embedding", *AISFX_HEADS],
        examples=lambda: [np.random.default_rng(0).random((2, 100, 96), np.float32)],
    )


def _aisfx_of_samples(folder: Path) -> Architecture:
    from trivium.encoders.audio.aisfx import build_aisfx
    from trivium.encoders.audio.on_gpu import BLOCK_SAMPLES, SampleBlocks
    from trivium.encoders.networks.conversions import AISFX_HEADS

    def examples() -> list[np.ndarray]:
        samples = np.random.default_rng(0).integers(-20_000, 20_000, (2, BLOCK_SAMPLES), np.int16)
        return [samples, np.array([100, 50])]

    return Architecture(
        name=f"{folder.name}-samples",
        build=lambda: SampleBlocks(build_aisfx(folder)),
        inputs={"samples": {0: "n"}, "frames": {0: "n"}},
        outputs=["embedding", *AISFX_HEADS],
        examples=examples,
    )


def _text_backbone(folder: Path, network: Network) -> Backbone:
    from trivium.encoders.text.backbone import minilm

    return minilm(folder, network)


def _image_backbone(_: Path, network: Network) -> Backbone:
    from trivium.encoders.image.backbone import image_backbone
    from trivium.encoders.image.fit import Fit

    # The usual cut of 224 from 256 loses what stands at the edge, and was measurably worse (docs/benchmarks.md, "Which
    # part of a picture").
    fit = Fit(side=224, mode="squash")
    return image_backbone(network, fit, dim=1280, heads={"imagenet": 1000}, layers=IMAGE_LAYERS)


def _audio_backbone(_: Path, network: Network) -> Backbone:
    from trivium.encoders.audio.backbone import AudioBackbone

    if device_kind(network.device) == "gpu":
        from trivium.encoders.audio.on_gpu import Samples

        return AudioBackbone(network, Samples())
    from trivium.encoders.audio.log_mel import LogMel

    return AudioBackbone(network, LogMel())


BACKBONES: dict[str, BackboneSpec] = {
    "minilm-l6": BackboneSpec(
        modality="text",
        dim=384,
        weights=WEIGHTS["minilm-l6"],
        preprocessing="tokens256-1",
        architecture=_minilm,
        build=_text_backbone,
    ),
    "efficientnet-lite0": BackboneSpec(
        modality="image",
        dim=1280,
        weights=WEIGHTS["efficientnet-lite0"],
        preprocessing="squeeze224-1",
        architecture=_efficientnet_lite0,
        build=_image_backbone,
    ),
    "aisfx": BackboneSpec(
        modality="audio",
        dim=512,
        weights=WEIGHTS["aisfx"],
        preprocessing="logmel96-peak0.2-1",
        architecture=_aisfx,
        build=_audio_backbone,
        gpu_architecture=_aisfx_of_samples,
    ),
}


def build_backbone(
    name: str,
    *,
    device: str = "cpu",
    precision: Precision = "float32",
    announce: Callable[[str], None] | None = None,
) -> Backbone:
    """Load a backbone, fetching its weights on first use.

    Args:
        name: One of `BACKBONES`, or ``text-model:FOLDER``: a text encoder of one's own (`own_models`).
        device: See `load_network`.
        precision: See `load_network`; networks of convolutions have nothing to gain by it, and stay in float32.
        announce: Called with one line before a download or other work that is done once.

    Raises:
        ValueError: If there is no backbone of that name.
        WeightsError: If its weights cannot be had.
    """
    if name.startswith(TEXT_MODEL):
        from trivium.encoders.text.own_models import load_text_model

        own = Path(name.removeprefix(TEXT_MODEL))
        return load_text_model(own, device=device, precision=precision, announce=announce)
    spec = backbone_spec(name)
    folder = fetch(spec.weights, announce=announce)
    precision = precision if spec.modality == "text" else "float32"
    architecture = spec.architecture
    if spec.gpu_architecture is not None and device_kind(device) == "gpu":
        architecture = spec.gpu_architecture
    checked = _checked(architecture(folder), spec.weights)
    return spec.build(folder, load_network(checked, device=device, precision=precision, announce=announce))


def _checked(architecture: Architecture, weights: Weights) -> Architecture:
    """Make an architecture whose weights are compared, every byte, before a network is built of them."""

    def build() -> "torch.nn.Module":
        fetch_checked(weights)
        return architecture.build()

    return replace(architecture, build=build, is_public=True)


def backbone_spec(name: str) -> BackboneSpec:
    """Look a backbone up; the message of the ValueError lists the known ones."""
    try:
        return BACKBONES[name]
    except KeyError:
        raise ValueError(f"unknown backbone '{name}', known are: {', '.join(sorted(BACKBONES))}") from None
