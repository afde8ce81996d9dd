"""Pickled checkpoints to safetensors: read as tensors only, given other names, nothing computed.

Each takes the folder that a checkpoint was unpacked in, and leaves there what is kept (`weights`).
"""

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.encoders.base import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

# Library -> number of classes, in the checkpoint's order. The first three follow the Universal Category System.
AISFX_HEADS: Mapping[str, int] = {
    "prosfx": 78,
    "soundly": 79,
    "ucs_mixed": 69,
    "soundstorm": 81,
    "production_elements": 10,
    "cartoon_express": 27,
    "hpx_digital": 3,
    "series_6000": 23,
    "series_9000": 8,
}


def convert_efficientnet(folder: Path) -> None:
    """Turn EfficientNet-Lite0's checkpoint into safetensors with timm's names.

    Raises:
        WeightsError: If it has other layers.
    """
    import timm
    import torch
    from safetensors.torch import save_file

    source = folder / "efficientnet-lite0-57934424.pth"
    state = torch.load(source, weights_only=True, map_location="cpu")
    # The checkpoint has other names than timm, but lists the same tensors in the same order.
    names = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if [tuple(t.shape) for t in names.values()] != [tuple(t.shape) for t in state.values()]:
        raise WeightsError("the EfficientNet-Lite0 checkpoint does not have the layers that timm expects")
    tensors = {name: tensor.contiguous() for name, tensor in zip(names, state.values(), strict=True)}
    save_file(tensors, folder / "model.safetensors")
    source.unlink()


def convert_aisfx(folder: Path) -> None:
    """Turn aiSFX's checkpoint into safetensors with our names."""
    import numpy as np
    import torch
    from numpy._core import multiarray
    from safetensors.torch import save_file

    source = folder / "checkpoint.pth"
    # Beside the tensors the file holds a table of class counts as NumPy scalars, saved under NumPy 1 names.
    allowed: list[Any] = [
        (multiarray.scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        np.dtypes.Int64DType,
        codecs.encode,
    ]
    with torch.serialization.safe_globals(allowed):
        state, _class_counts = torch.load(source, weights_only=True, map_location="cpu")
    save_file(from_checkpoint_names(state), folder / "model.safetensors")
    source.unlink()


def from_checkpoint_names(state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Rename the published checkpoint's tensors to `audio.aisfx`'s."""
    names = list(AISFX_HEADS)
    renamed = {}
    for name, tensor in state.items():
        part, index_or_block, rest = name.split(".", 2)
        if part == "embedding_net":
            renamed[f"blocks.{int(index_or_block.removeprefix('conv_block')) - 1}.{rest}"] = tensor
        else:
            renamed[f"heads.{names[int(index_or_block)]}.{rest}"] = tensor
    return renamed
