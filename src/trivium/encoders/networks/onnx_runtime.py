"""Networks exported to ONNX, once for each set of weights, kept in the cache, and run by ONNX Runtime.

ONNX Runtime runs them on a CPU 1.2 to 2 times as fast as torch does (docs/benchmarks.md), and without importing torch.
The export is made here from weights that were checked; no graph from elsewhere is ever loaded, and none that is not as
it was made (`graph_seal`): it is made again.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import WeightsError
from trivium.encoders.files.user_cache import cache_folder, private_folder
from trivium.encoders.machine import usable_cores
from trivium.encoders.networks.contract import Architecture, Arrays, Precision
from trivium.encoders.networks.graph_seal import Seal, is_intact, read_seal, seal_graph

if TYPE_CHECKING:
    import torch

OPSET = 17  # the first with layer normalisation as one operator
REVISION = 2  # of how graphs are made: another one makes all anew
TOLERANCE = 1e-5  # of the largest number that torch gives; a wrong export is off by far more


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A network's graph that is as it was made."""

    file: Path
    seal: Seal


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
        outputs: Any = self._session.run(None, dict(zip(self._inputs, inputs, strict=True)))
        return tuple(outputs)


def graph_file(architecture: Architecture, *, precision: Precision) -> Path:
    """Where an exported graph is kept, whether it is there or not."""
    return cache_folder() / "graphs" / f"{architecture.name}-{REVISION}" / f"{precision}.onnx"


def exported(
    architecture: Architecture, *, precision: Precision = "float32", announce: Callable[[str], None] | None = None
) -> Graph:
    """Return a network's graph, exporting it if it is not in the cache, or no longer as it was made.

    Args:
        architecture: What to export.
        precision: ``int8`` stores the weights of matrix products in 8 bits and computes them so; convolutions stay.
        announce: Called with one line before an export.

    Raises:
        WeightsError: If the weights are damaged, the graph cannot be written, or it does not compute what torch does.
    """
    file = graph_file(architecture, precision=precision)
    if (graph := sound_graph(file)) is not None:
        return graph
    if announce is not None and file.exists():
        announce(f"the prepared {architecture.name} ({precision}) in the cache is damaged or of an older Trivium")
    return export(architecture, precision=precision, announce=announce)


def sound_graph(file: Path) -> Graph | None:
    """Return a graph that is as it was made, every byte of it; None if it is not, or not there."""
    seal = read_seal(file)
    return Graph(file=file, seal=seal) if seal is not None and is_intact(file, seal) else None


def export(
    architecture: Architecture, *, precision: Precision = "float32", announce: Callable[[str], None] | None = None
) -> Graph:
    """Make a network's graph; one that is in the cache stays until there is another.

    Args:
        architecture: See `exported`.
        precision: See `exported`.
        announce: See `exported`.

    Raises:
        WeightsError: See `exported`.
    """
    file = graph_file(architecture, precision=precision)
    source = None if precision == "float32" else exported(architecture, announce=announce)
    if announce is not None:
        announce(f"preparing {architecture.name} for this machine's processor ({precision}, once)")
    try:
        if architecture.is_public:
            file.parent.mkdir(parents=True, exist_ok=True)
        else:
            private_folder(file.parent)
        # Whole or not at all; another process may do the same at the same time.
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{precision}-") as scratch:
            draft = Path(scratch) / file.name
            seal = _export(architecture, draft) if source is None else _quantize(source, draft)
            if not architecture.is_public:
                draft.chmod(0o600)
            os.replace(draft, file)
    except OSError as error:
        raise WeightsError(f"cannot keep {file.name} of {architecture.name} in {file.parent}: {error}") from error
    return Graph(file=file, seal=seal)


def _export(architecture: Architecture, target: Path) -> Seal:
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
            first = tuple(example[:1] for example in examples)
            canary = [output.numpy() for output in module(*first)]
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    found = OnnxNetwork(target)(*(example.numpy() for example in larger))
    for name, torch_says, graph_says in zip(architecture.outputs, expected, found, strict=True):
        error = float(np.abs(torch_says.numpy() - graph_says).max())
        largest = float(torch_says.abs().max())
        if not error <= TOLERANCE * max(largest, 1.0):
            raise WeightsError(
                f"the exported {architecture.name} does not compute what torch does: {name} differs by {error:.2g}, "
                f"its largest number is {largest:.2g}. Use the device 'cpu-torch', and please report this"
            )
    return seal_graph(target, [each.numpy() for each in first], canary)


def _larger(example: "torch.Tensor", axes: Mapping[int, str]) -> "torch.Tensor":
    import torch

    example = torch.cat([example, example[:1]])
    return torch.nn.functional.pad(example, (0, 3)) if 1 in axes else example


def _quantize(source: Graph, target: Path) -> Seal:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # It logs advice to the root logger, about graphs with operators that ours do not have.
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        quantize_dynamic(
            source.file,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,  # without VNNI two products of 8 bits overflow 16
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
    # Torch has no numbers to compare with.
    return seal_graph(target, source.seal.inputs, OnnxNetwork(target)(*source.seal.inputs))
