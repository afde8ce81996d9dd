"""Networks made ready to run: in ONNX Runtime on a CPU, in torch on everything else."""

from collections.abc import Callable, Mapping

from trivium.encoders.base import WeightsError
from trivium.encoders.networks.contract import Architecture, Network, Precision
from trivium.encoders.networks.onnx_runtime import Graph, OnnxNetwork, export, exported

# Of a canary's largest number. Other processors and releases round in another order; int8 has steps of a hundredth.
CANARY_TOLERANCE: Mapping[Precision, float] = {"float32": 1e-4, "int8": 2e-2}


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
            (`torch_runtime`).
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


def _tried(graph: Graph, precision: Precision) -> OnnxNetwork:
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
