"""Which devices there are to run networks on, asked without importing torch where there is no GPU."""

import ctypes.util
import platform
import sys
from collections.abc import Sequence

from trivium.encoders.networks import PLAIN


class DeviceError(ValueError):
    """A device that this machine does not have."""


def resolve(device: str) -> Sequence[str]:
    """Name the devices that a user means, each of them one that `networks.load_network` takes.

    Args:
        device: ``auto``, the best there is; ``cpu``; ``cuda``, all GPUs; ``cuda:N``, one; ``mps``; ``cpu-torch``.

    Returns:
        At least one device.

    Raises:
        DeviceError: If there is no such device here.
    """
    if device in ("cpu", PLAIN):
        return [device]
    if device == "auto":
        if _may_have_cuda() and (found := _cuda_devices()):
            return found
        return ["mps"] if _may_have_mps() and _works("mps") else ["cpu"]
    if device == "cuda" and (found := _cuda_devices()):
        return found
    if device != "cuda" and _works(device):
        return [device]
    raise DeviceError(f"the device '{device}' cannot be used here: {_why_not(device)}")


def _may_have_cuda() -> bool:
    """Whether NVIDIA's driver is installed: importing torch to be told "no" takes seconds."""
    return ctypes.util.find_library("cuda") is not None if sys.platform == "linux" else sys.platform == "win32"


def _may_have_mps() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _cuda_devices() -> list[str]:
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []


def _works(device: str) -> bool:
    return not _why_not(device)


def _why_not(device: str) -> str:
    """Return what torch says of a device that does not work, empty if it does."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        return str(error).splitlines()[0]
    return ""
