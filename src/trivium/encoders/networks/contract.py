"""Frozen networks as functions of NumPy arrays: in ONNX Runtime on a CPU, in torch on everything else."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from numpy.typing import NDArray

from trivium.encoders.cores import usable_cores
from trivium.encoders.networks.graphs import Architecture, Graph, Precision, export, exported
from trivium.encoders.networks.weights import WeightsError

Arrays: TypeAlias = tuple[NDArray[Any], ...]
DeviceKind: TypeAlias = Literal["cpu", "gpu"]
# Of a canary's largest number. Other processors and releases round in another order; int8 has steps of a hundredth.
CANARY_TOLERANCE: Mapping[Precision, float] = {"float32": 1e-4, "int8": 2e-2}


def device_kind(device: str) -> DeviceKind:
    """Whether a device's batches are a processor's or a GPU's."""
    return "cpu" if device.startswith("cpu") else "gpu"


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
        device: ``cpu``; ``cpu-torch``, torch in float32; or as torch names a device, where half precision is used
            (`torch_network`).
        precision: ``int8`` concerns a CPU only.
        announce: Called with one line before work that is done once.

    Raises:
        WeightsError: If its weights are damaged, or it cannot be exported, or computes other numbers than it should.
    """
    if device != "cpu":
        from trivium.encoders.networks.torch_runtime import load_torch_network

        return load_torch_network(architecture, device=device)
    graph = exported(architecture, precision=precision, announce=announce)
    try:
        return _tried(graph, precision)
    except Exception as error:  # ONNX Runtime's own, of several kinds: damaged, or half of it
        if announce is not None:
            announce(f"the prepared {architecture.name} ({precision}) cannot be used ({error})")
        graph = export(architecture, precision=precision, announce=announce)
        try:
            return _tried(graph, precision)
        except Exception as again:
            raise WeightsError(f"the exported {architecture.name} cannot be loaded: {again}") from again


def _tried(graph: Graph, precision: Precision) -> "OnnxNetwork":
    """Load a graph, and see that it says of one item what it said when it was made.

    Raises:
        WeightsError: If it does not.
    """
    network = OnnxNetwork(graph.file)
    if graph.seal.differs(network(*graph.seal.inputs), tolerance=CANARY_TOLERANCE[precision]):
        raise WeightsError(
            "it computes other numbers here than when it was made: use the device 'cpu-torch', and please report this"
        )
    return network


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
