"""Frozen networks as functions of NumPy arrays: in ONNX Runtime on a CPU, in torch on everything else."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.cores import usable_cores
from trivium.encoders.graphs import Architecture, Precision, exported, graph_file
from trivium.encoders.weights import WeightsError

if TYPE_CHECKING:
    import torch

Arrays: TypeAlias = tuple[NDArray[Any], ...]
PLAIN = "cpu-torch"  # a device's name: the slow way that the fast ones are compared with


class Network(Protocol):
    """What a backbone runs its batches through; safe to call from several threads."""

    @property
    def device(self) -> str:
        """Where it runs."""
        ...

    def __call__(self, *inputs: NDArray[Any]) -> Arrays:
        """One forward pass: arrays whose first axis is the batch, in and out; float32 out."""
        ...


def load_network(
    architecture: Architecture,
    *,
    device: str = "cpu",
    precision: Precision = "float32",
    announce: Callable[[str], None] | None = None,
) -> Network:
    """Make a network ready to run.

    Args:
        architecture: Which.
        device: ``cpu``; ``cpu-torch``, torch in float32; or as torch names a device, where half precision is used.
        precision: ``int8`` concerns a CPU only.
        announce: Called with one line before work that is done once.

    Raises:
        WeightsError: If it cannot be exported.
    """
    if device != "cpu":
        return TorchNetwork(architecture.build(), device=device)
    path = exported(architecture, precision=precision, announce=announce)
    try:
        return OnnxNetwork(path)
    except Exception as error:  # ONNX Runtime's own, of several kinds: damaged, or half of it
        graph_file(architecture, precision=precision).unlink(missing_ok=True)
        try:
            return OnnxNetwork(exported(architecture, precision=precision, announce=announce))
        except Exception:
            raise WeightsError(f"the exported {architecture.name} cannot be loaded: {error}") from error


class OnnxNetwork:
    """A graph in ONNX Runtime, on all cores."""

    device = "cpu"

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_cores() if threads is None else threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors: it warns of initializers that it folds itself
        # Threads that spin while they wait for work would take the cores from decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [entry.name for entry in self._session.get_inputs()]

    def __call__(self, *inputs: NDArray[Any]) -> Arrays:
        """Run one pass."""
        return tuple(self._session.run(None, dict(zip(self._inputs, inputs, strict=True))))


class TorchNetwork:
    """A torch module, on a GPU in half precision; batches that do not fit its memory are halved."""

    def __init__(self, module: "torch.nn.Module", *, device: str) -> None:
        import torch

        self.device = device
        self._device = torch.device("cpu" if device == PLAIN else device)
        self._dtype = _half_precision(self._device)
        self._module = module.eval().to(self._device, self._dtype)
        self._most_numbers: int | None = None  # in all inputs of a pass, once memory has run out
        self._lock = threading.Lock()

    def __call__(self, *inputs: NDArray[Any]) -> Arrays:
        """Run one pass, or several smaller ones."""
        import torch

        rows = len(inputs[0])
        numbers = sum(array.size for array in inputs)
        if self._most_numbers is not None and numbers > self._most_numbers and rows > 1:
            return self._halves(inputs)
        try:
            with torch.inference_mode():
                return self._pass(inputs)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise MemoryError(f"one item is too large for the memory of {self.device}") from None
            with self._lock:
                self._most_numbers = min(numbers // 2, self._most_numbers or numbers)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        return self._halves(inputs)

    def _pass(self, inputs: Arrays) -> Arrays:
        import torch

        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in inputs]
        if self._device.type == "cuda":  # pinned memory is copied while the device computes
            tensors = [tensor.pin_memory() for tensor in tensors]
        tensors = [
            tensor.to(self._device, self._dtype if tensor.is_floating_point() else None, non_blocking=True)
            for tensor in tensors
        ]
        return tuple(output.float().cpu().numpy() for output in self._module(*tensors))

    def _halves(self, inputs: Arrays) -> Arrays:
        middle = len(inputs[0]) // 2
        first = self(*(array[:middle] for array in inputs))
        second = self(*(array[middle:] for array in inputs))
        return tuple(np.concatenate(parts) for parts in zip(first, second, strict=True))


def _half_precision(device: "torch.device") -> "torch.dtype":
    """Return bfloat16 where the GPU has it, else float16; on a CPU both are a hundred times slower than float32."""
    import torch

    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float16
