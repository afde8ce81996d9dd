"""Networks exported to ONNX, once for each set of weights, and kept in the cache.

ONNX Runtime runs them on a CPU 1.2 to 2 times as fast as torch does (docs/benchmarks.md), and without importing torch.
The export is made here from weights that were checked; no graph from elsewhere is ever loaded.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.weights import WeightsError, cache_folder

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "int8"]
OPSET = 17  # the first with layer normalisation as one operator
REVISION = 2  # of how graphs are made: another one makes all anew
TOLERANCE = 1e-5  # of the largest number that torch gives; a wrong export is off by far more


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network that torch builds, and what is needed to export it."""

    name: str  # changes with the weights
    build: "Callable[[], torch.nn.Module]"  # takes and returns tensors; the first axis of each is the batch
    inputs: Mapping[str, Mapping[int, str]]  # name -> the axes whose length varies, and what they count
    outputs: Sequence[str]
    examples: Callable[[], Sequence[NDArray[np.generic]]]  # what to trace and to compare with
    longest: int | None = None  # of the second axis where it varies; zeros may be added up to it


def graph_file(architecture: Architecture, *, precision: Precision) -> Path:
    """Where an exported graph is kept, whether it is there or not."""
    return cache_folder() / "graphs" / f"{architecture.name}-{REVISION}" / f"{precision}.onnx"


def exported(
    architecture: Architecture, *, precision: Precision = "float32", announce: Callable[[str], None] | None = None
) -> Path:
    """Return a network's graph, exporting it if it is not in the cache.

    Args:
        architecture: What to export.
        precision: ``int8`` stores the weights of matrix products in 8 bits and computes them so; convolutions stay.
        announce: Called with one line before an export.

    Raises:
        WeightsError: If the graph cannot be written, or does not compute what torch does.
    """
    file = graph_file(architecture, precision=precision)
    if file.is_file():
        return file
    source = None if precision == "float32" else exported(architecture, announce=announce)
    if announce is not None:
        announce(f"preparing {architecture.name} for this machine's processor ({precision}, once)")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all; another process may do the same at the same time.
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{precision}-") as scratch:
            draft = Path(scratch) / file.name
            if source is None:
                _export(architecture, draft)
            else:
                _quantize(source, draft)
            os.replace(draft, file)
    except OSError as error:
        raise WeightsError(f"cannot keep {file.name} of {architecture.name} in {file.parent}: {error}") from error
    return file


def _export(architecture: Architecture, target: Path) -> None:
    import torch

    module = architecture.build().eval()
    examples = tuple(torch.from_numpy(np.array(example)) for example in architecture.examples())
    axes = {**architecture.inputs, **{name: {0: "n"} for name in architecture.outputs}}
    # Its fused attention has no counterpart in ONNX.
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            # About the exporter's own future, and shapes that tracing sees as numbers: the comparison below tells.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                examples,
                str(target),
                dynamo=False,  # the newer exporter needs onnxscript and took ten times as long
                input_names=list(architecture.inputs),
                output_names=list(architecture.outputs),
                dynamic_axes=axes,
                opset_version=OPSET,
            )
            # With one row and three columns more: a shape that tracing took for a constant shows.
            larger = tuple(
                _larger(example, axes) for example, axes in zip(examples, architecture.inputs.values(), strict=True)
            )
            expected = module(*larger)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    from trivium.encoders.networks import OnnxNetwork

    found = OnnxNetwork(target)(*(example.numpy() for example in larger))
    for name, torch_says, graph_says in zip(architecture.outputs, expected, found, strict=True):
        error = float(np.abs(torch_says.numpy() - graph_says).max())
        largest = float(torch_says.abs().max())
        if not error <= TOLERANCE * max(largest, 1.0):
            raise WeightsError(
                f"the exported {architecture.name} does not compute what torch does: {name} differs by {error:.2g}, "
                f"its largest number is {largest:.2g}. Use the device 'cpu-torch', and please report this"
            )


def _larger(example: "torch.Tensor", axes: Mapping[int, str]) -> "torch.Tensor":
    import torch

    example = torch.cat([example, example[:1]])
    return torch.nn.functional.pad(example, (0, 3)) if 1 in axes else example


def _quantize(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # It logs advice to the root logger, about graphs with operators that ours do not have.
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,  # without VNNI two products of 8 bits overflow 16
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
