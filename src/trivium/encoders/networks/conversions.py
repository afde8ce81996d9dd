"""Pickled checkpoints to safetensors: read as tensors only, given other names, nothing computed.

Each takes the folder that a checkpoint was unpacked in, and leaves there what is kept (`weights`).
"""

import codecs
from pathlib import Path
from typing import Any


def convert_efficientnet(folder: Path) -> None:
    """Turn EfficientNet-Lite0's checkpoint into safetensors with timm's names.

    Raises:
        WeightsError: If it has other layers.
    """
    import timm
    import torch
    from safetensors.torch import save_file

    from trivium.encoders.networks.weights import WeightsError

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

    from trivium.encoders.audio.aisfx import from_checkpoint_names

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
