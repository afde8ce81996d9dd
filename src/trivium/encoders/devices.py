"""Which devices there are to run networks on, asked without importing torch where there is no GPU."""

import ctypes
import os
import platform
import re
import sys
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from trivium.encoders.sandbox.mode import sandbox_mode

PLAIN = "cpu-torch"  # a device's name: the slow way that the fast ones are compared with
# How a GPU is told what to compute: operator by operator; recorded once for each shape and replayed, which spares the
# launches that limit small networks; or compiled for each shape, which takes minutes before the first vector.
GpuMode: TypeAlias = Literal["eager", "graphs", "compile"]
MODE_VARIABLE = "TRIVIUM_GPU_MODE"
# What a GPU does of pictures: nothing before the network; resizing; or decoding of JPEGs too, which is then done
# outside the sandbox (`image.on_gpu`).
PictureMode: TypeAlias = Literal["cpu", "resize", "jpeg"]
PICTURES_VARIABLE = "TRIVIUM_GPU_PICTURES"
KNOWN = re.compile(rf"auto|cpu|{PLAIN}|cuda(:\d{{1,4}})?|mps", re.ASCII)
DRIVERS = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}


class DeviceError(ValueError):
    """A device that this machine does not have, or a wrong word about one."""


def resolve(device: str) -> list[str]:
    """Name the devices that a user means, each of them one that `load_network` takes.

    Args:
        device: ``auto``, the best there is; ``cpu``; ``cuda``, all GPUs; ``cuda:N``, one; ``mps``; ``cpu-torch``.

    Returns:
        At least one device.

    Raises:
        DeviceError: If there is no such device here, or a variable does not fit (`gpu_mode`, `picture_mode`).
    """
    if not KNOWN.fullmatch(device):
        raise DeviceError(f"a device is auto, cpu, cuda (all GPUs), cuda:N or mps, got '{device}'")
    gpu_mode()
    picture_mode()
    if device in ("cpu", PLAIN):
        return [device]
    if device in ("auto", "cuda") and (found := _cuda_devices()):
        if len(found) > 1 and picture_mode() == "jpeg":
            raise DeviceError(
                f"{PICTURES_VARIABLE}=jpeg works with one GPU, there are {len(found)}: torchvision has one decoder, "
                "and makes it anew whenever the GPU changes. Name a GPU, as cuda:0, or choose resize"
            )
        return found
    if device == "auto":
        return ["mps"] if _may_have_mps() and not _why_not("mps") else ["cpu"]
    if reason := _why_not(device):
        raise DeviceError(f"the device '{device}' cannot be used here: {reason}")
    return [device]


def gpu_mode() -> GpuMode:
    """Return what TRIVIUM_GPU_MODE says, ``eager`` if nothing.

    Raises:
        DeviceError: If it is none of `GpuMode`.
    """
    return _chosen(MODE_VARIABLE, get_args(GpuMode))  # type: ignore[return-value]


def picture_mode() -> PictureMode:
    """Return what TRIVIUM_GPU_PICTURES says, ``cpu`` if nothing.

    Raises:
        DeviceError: If it is none of `PictureMode`, or decodes where a strict sandbox is asked for.
        SandboxError: If what is asked of the sandbox is nothing that is known.
    """
    mode = _chosen(PICTURES_VARIABLE, get_args(PictureMode))
    if mode == "jpeg" and sandbox_mode() == "strict":
        raise DeviceError(f"{PICTURES_VARIABLE}=jpeg decodes outside the sandbox, which is to be strict: take resize")
    return mode  # type: ignore[return-value]


def _chosen(variable: str, known: tuple[str, ...]) -> str:
    mode = os.environ.get(variable) or known[0]
    if mode not in known:
        raise DeviceError(f"{variable} must be one of {', '.join(known)}, got '{mode}'")
    return mode


def _may_have_cuda() -> bool:
    """Whether a GPU's driver is installed: importing torch to be told "no" takes seconds."""
    if Path("/dev/kfd").exists():  # AMD's; torch calls such GPUs cuda too
        return True
    try:
        ctypes.CDLL(DRIVERS[sys.platform])
    except (KeyError, OSError):
        return False
    return True


def _may_have_mps() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _cuda_devices() -> list[str]:
    if not _may_have_cuda():
        return []
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []


def _why_not(device: str) -> str:
    """Return why a device does not work, empty if it does."""
    if device.startswith("cuda") and not _may_have_cuda():
        return "there is no driver of a GPU"
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        return str(error).splitlines()[0]
    return ""
