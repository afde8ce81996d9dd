"""Networks in torch: on a GPU in half precision, with copies that overlap; on a CPU plain, to compare with.

On a GPU weights and activations are float16, whose rounding is eight times finer than bfloat16's: of EfficientNet-Lite0
the cosine to float32 was 0.99999 against 0.9991. A pass whose numbers overflow it is run again in bfloat16.
"""

import copy
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trivium.encoders.devices import PLAIN, GpuMode, gpu_mode
from trivium.encoders.networks.contract import Architecture, Arrays

Forward: TypeAlias = Callable[..., Sequence[Tensor]]
Fetch: TypeAlias = Callable[[], list[NDArray[Any]]]
Input: TypeAlias = NDArray[Any] | Tensor  # a tensor lies on the device already
FIRST_NUMBERS = 1 << 21  # 14 pictures of 224 x 224: fits any GPU, and tells how much memory a number takes
MOST_NUMBERS = 1 << 26  # 445 such pictures: a larger pass is no faster, and several passes overlap with their copies
SHARE = 0.5  # of the free memory: the rest is for copies on their way, and for what fragmentation wastes
SHORTEST = 32  # positions; shorter texts are padded to it where shapes are fixed
Convolution = nn.Conv1d | nn.Conv2d
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
FOLDING_TOLERANCE = 1e-4  # of the largest number; 2e-6 was seen


def load_torch_network(architecture: Architecture, *, device: str) -> "TorchNetwork":
    """Build a network for a device.

    Raises:
        DeviceError: See `devices.gpu_mode`.
    """
    module = architecture.build().eval()
    if device == PLAIN:
        return TorchNetwork(module, device=device)
    module = folded(module, [torch.from_numpy(np.array(example)) for example in architecture.examples()])
    return TorchNetwork(module, device=device, dtype=torch.float16, mode=gpu_mode(), longest=architecture.longest)


def made_current(device: torch.device) -> AbstractContextManager[None]:
    """Make a GPU the one that what names none means; nothing for other devices."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class TorchNetwork:
    """A torch module; batches larger than its memory are cut. Safe to call from several threads."""

    def __init__(
        self,
        module: nn.Module,
        *,
        device: str,
        dtype: torch.dtype = torch.float32,
        mode: GpuMode = "eager",
        longest: int | None = None,
    ) -> None:
        """Take a module to a device.

        Args:
            module: Takes and returns tensors; the first axis of each is the batch. It is changed.
            device: As torch names it, or `PLAIN`.
            dtype: Of the weights and what they compute.
            mode: See `devices.GpuMode`; all but ``eager`` run few shapes only, to which batches are padded.
            longest: Of the second axis of the inputs, if it varies.
        """
        self.device = device
        self._device = torch.device("cpu" if device == PLAIN else device)
        self._dtype = dtype
        self._is_fixed = mode != "eager"
        self._longest = longest
        module = module.eval().requires_grad_(False)
        if self._device.type != "cpu":  # concerns convolutions, which tensor cores want so
            module = module.to(memory_format=torch.channels_last)
        self._module = module.to(self._device, dtype)
        self._forward: Forward = self._module
        if mode == "compile":
            self._forward = torch.compile(self._module, dynamic=False)
        elif mode == "graphs" and self._device.type == "cuda":
            self._forward = _Recorded(self._module)
        self._is_measured = self._device.type == "cuda"
        self._size = PassSize(FIRST_NUMBERS if self._is_measured else None)
        self._transfer = _Streams(self._device) if self._device.type == "cuda" else _Direct(self._device)
        self._wide: nn.Module | None = None
        self._lock, self._measuring = threading.Lock(), threading.Lock()

    def __call__(self, *inputs: Input) -> Arrays:
        """Run one pass, or as many as memory needs; what is copied for one overlaps with computing the one before."""
        count = len(inputs[0])
        numbers_per_row = sum(math.prod(array.shape[1:]) for array in inputs)
        todo, done = deque([slice(0, count)]), list[tuple[slice, Fetch]]()
        with torch.inference_mode(), made_current(self._device):
            while todo:
                rows = todo.popleft()
                most = self._size.rows(numbers_per_row)
                if most is not None and rows.stop - rows.start > most:
                    todo.appendleft(slice(rows.start + most, rows.stop))
                    rows = slice(rows.start, rows.start + most)
                fetch = self._started([array[rows] for array in inputs])
                if fetch is not None:
                    done.append((rows, fetch))
                    continue
                if rows.stop - rows.start <= 1:
                    raise MemoryError(f"one item is too large for the memory of {self.device}")
                self._size.failed((rows.stop - rows.start) * numbers_per_row)
                todo.appendleft(rows)
            return self._collected(inputs, done)

    def _started(self, pieces: list[Input]) -> Fetch | None:
        """Run a pass as far as the device takes it without waiting; None if memory has run out."""
        count = len(pieces[0])
        try:
            sent = self._sent(pieces, self._dtype)
            if self._is_fixed and count:
                sent = self._padded(sent)
            outputs = [output[:count].float() for output in self._run(sent)]
            return self._transfer.fetch(outputs)
        except torch.OutOfMemoryError:
            pass  # outside, where the traceback no longer holds the tensors
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _sent(self, pieces: Sequence[Input], dtype: torch.dtype) -> list[Tensor]:
        """Send what is not on the device. Rounded there: a copy that converts is made by the processor, and waits."""
        arrived = iter(self._transfer.send([piece for piece in pieces if not isinstance(piece, Tensor)]))
        tensors = [piece if isinstance(piece, Tensor) else next(arrived) for piece in pieces]
        return [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in tensors]

    def _padded(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """Fill pieces up to one of the few shapes that are run."""
        length = None if self._longest is None else next_size(pieces[0].shape[1], least=SHORTEST, most=self._longest)
        return [_filled(piece, rows=next_size(len(piece)), length=length) for piece in pieces]

    def _run(self, sent: Sequence[Tensor]) -> Sequence[Tensor]:
        if not self._is_measured:
            return self._forward(*sent)
        with self._measuring:  # what is told counts for the whole device
            before = torch.cuda.memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            outputs = self._forward(*sent)
            used = torch.cuda.max_memory_allocated(self._device) - before
            free, _ = torch.cuda.mem_get_info(self._device)
            kept = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        self._size.fitted(sum(map(torch.numel, sent)), used_bytes=used, free_bytes=free + kept)
        return outputs

    def _collected(self, inputs: Sequence[Input], done: list[tuple[slice, Fetch]]) -> Arrays:
        found: list[NDArray[Any]] = []
        for rows, fetch in done:
            parts = fetch()
            if self._dtype == torch.float16 and not all(np.isfinite(part).all() for part in parts):
                parts = self._in_bfloat16([array[rows] for array in inputs])
            if not found:
                found = [np.empty((len(inputs[0]), *part.shape[1:]), np.float32) for part in parts]
            for whole, part in zip(found, parts, strict=True):
                whole[rows] = part
        return tuple(found)

    def _in_bfloat16(self, pieces: list[Input]) -> list[NDArray[Any]]:
        with self._lock:
            if self._wide is None:
                self._wide = copy.deepcopy(self._module).to(torch.bfloat16)
        sent = self._sent(pieces, torch.bfloat16)
        return self._transfer.fetch([output.float() for output in self._wide(*sent)])()


class PassSize:
    """How many numbers, of all inputs together, a pass takes: learnt from passes that fitted and from one that did not.

    Safe to use from several threads.
    """

    def __init__(self, first: int | None = None) -> None:
        """Start with so many numbers; None: no limit until a pass has failed."""
        self._numbers = first
        self._failed: int | None = None
        self._largest = 0
        self._lock = threading.Lock()

    def rows(self, numbers_per_row: int) -> int | None:
        """Return how many rows a pass takes, at least 1; None: any number."""
        return None if self._numbers is None else max(1, self._numbers // max(1, numbers_per_row))

    def fitted(self, numbers: int, *, used_bytes: int, free_bytes: int) -> None:
        """Learn from a pass how many would fit; what is fixed weighs less in a larger one, so that counts more."""
        with self._lock:
            if numbers <= self._largest or self._numbers is None:
                return
            self._largest = numbers
            affordable = int(numbers * SHARE * free_bytes / max(1, used_bytes))
            most = MOST_NUMBERS if self._failed is None else min(MOST_NUMBERS, self._failed)
            self._numbers = max(1, min(affordable, most))

    def failed(self, numbers: int) -> None:
        """Take half of what did not fit, from now on."""
        with self._lock:
            self._failed = min(numbers // 2, numbers if self._failed is None else self._failed)
            self._numbers = max(1, self._failed)


def next_size(count: int, *, least: int = 1, most: int | None = None) -> int:
    """Return the next power of two from ``least`` on, or ``most`` if that is less."""
    size = max(least, 1 << max(0, count - 1).bit_length())
    return size if most is None else min(size, most)


class _Direct:
    """Copies that are waited for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def send(self, arrays: Sequence[NDArray[Any]]) -> list[Tensor]:
        return [_as_tensor(array).to(self._device) for array in arrays]

    def fetch(self, outputs: Sequence[Tensor]) -> Fetch:
        found = [output.cpu().numpy() for output in outputs]
        return lambda: found


class _Streams:
    """Copies from and to pinned memory on streams of their own, so that the device computes meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        stream: Any = torch.cuda.Stream  # not typed
        self._there, self._back = stream(device), stream(device)

    def send(self, arrays: Sequence[NDArray[Any]]) -> list[Tensor]:
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._there):
            sent = [_as_tensor(array).pin_memory().to(self._device, non_blocking=True) for array in arrays]
            computing.wait_event(self._there.record_event())
        for tensor in sent:
            tensor.record_stream(computing)  # else its memory were given to the next copy while it is read
        return sent

    def fetch(self, outputs: Sequence[Tensor]) -> Fetch:
        self._back.wait_event(torch.cuda.current_stream(self._device).record_event())
        with torch.cuda.stream(self._back):
            hosts = [torch.empty(output.shape, dtype=output.dtype, pin_memory=True) for output in outputs]
            for host, output in zip(hosts, outputs, strict=True):
                host.copy_(output, non_blocking=True)
                output.record_stream(self._back)
            copied = self._back.record_event()

        def wait() -> list[NDArray[Any]]:
            copied.synchronize()
            return [host.numpy() for host in hosts]

        return wait


class _Recorded:
    """A module as CUDA graphs, one for each shape of its inputs."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._graphs: dict[tuple[torch.Size, ...], tuple[torch.cuda.CUDAGraph, list[Tensor], list[Tensor]]] = {}
        self._lock = threading.Lock()  # the memory of a graph's inputs and outputs is the same each time

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        shapes = tuple(tensor.shape for tensor in inputs)
        with self._lock:
            if shapes not in self._graphs:
                self._graphs[shapes] = self._record(inputs)
            graph, taken, given = self._graphs[shapes]
            for place, tensor in zip(taken, inputs, strict=True):
                place.copy_(tensor)
            graph.replay()
            return [output.clone() for output in given]

    def _record(self, inputs: Sequence[Tensor]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], list[Tensor]]:
        taken = [tensor.clone() for tensor in inputs]
        stream: Any = torch.cuda.Stream  # not typed
        aside = stream(taken[0].device)
        aside.wait_stream(torch.cuda.current_stream(taken[0].device))
        with torch.cuda.stream(aside):
            for _ in range(3):  # libraries choose their algorithms and allocate in the first passes
                self._module(*taken)
        torch.cuda.current_stream(taken[0].device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            given = list(self._module(*taken))
        return graph, taken, given


def _filled(tensor: Tensor, *, rows: int, length: int | None) -> Tensor:
    """Fill a tensor (n, ...) up to a number of rows with its last row, and to a length of the second axis with zeros.

    Args:
        tensor: Has a row at least.
        rows: At least as many as it has.
        length: At least what it is; None leaves it.
    """
    if length is not None:
        tensor = nn.functional.pad(tensor, (*(0, 0) * (tensor.dim() - 2), 0, length - tensor.shape[1]))
    return torch.cat([tensor, tensor[-1:].expand(rows - len(tensor), *tensor.shape[1:])])


def _as_tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def folded(module: nn.Module, examples: Sequence[Tensor]) -> nn.Module:
    """Return a copy in which batch normalisations that take what a convolution gave are part of it.

    Which do is seen in a run of the examples. What follows a normalisation in the same object, as an activation does in
    timm's, stays.

    Args:
        module: In evaluation mode, weights in float32.
        examples: What it takes.

    Returns:
        The copy; the module itself if there is nothing to fold, or if the copy computes something else.
    """
    copied = copy.deepcopy(module)
    pairs = _pairs(copied, examples)
    if not pairs:
        return module
    parents = {child: (parent, name) for parent in copied.modules() for name, child in parent.named_children()}
    for convolution, norm in pairs:
        parent, name = parents[convolution]
        setattr(parent, name, fuse_conv_bn_eval(convolution, norm))
        parent, name = parents[norm]
        setattr(parent, name, _what_follows(norm))
    with torch.inference_mode():
        before, after = module(*examples), copied(*examples)
    # A convolution's output may be used where no module sees it, in a sum for instance: then the two differ by far.
    is_same = all(
        float((a - b).abs().max()) <= FOLDING_TOLERANCE * max(1.0, float(a.abs().max()))
        for a, b in zip(before, after, strict=True)
    )
    return copied if is_same else module


def _pairs(module: nn.Module, examples: Sequence[Tensor]) -> list[tuple[Convolution, BatchNorm]]:
    made: dict[int, tuple[Tensor, nn.Module]] = {}  # the tensor is kept, so that its id is not used again
    takers: dict[nn.Module, set[nn.Module]] = {}
    makers: dict[nn.Module, set[nn.Module]] = {}

    def seen(user: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        for tensor in inputs:
            if id(tensor) in made:
                takers.setdefault(made[id(tensor)][1], set()).add(user)
                makers.setdefault(user, set()).add(made[id(tensor)][1])
        if isinstance(user, Convolution) and isinstance(output, Tensor):
            made[id(output)] = (output, user)

    leaves = [child for child in module.modules() if isinstance(child, BatchNorm) or not list(child.children())]
    hooks = [leaf.register_forward_hook(seen) for leaf in leaves]
    try:
        with torch.inference_mode():
            module(*examples)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (convolution, norm)
        for convolution, users in takers.items()
        for norm in users
        if isinstance(convolution, Convolution)
        and isinstance(norm, BatchNorm)
        and norm.running_mean is not None
        and len(users) == len(makers[norm]) == 1
    ]


def _what_follows(norm: nn.Module) -> nn.Module:
    parts = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    parts = [part for part in parts if not isinstance(part, nn.Identity)]
    return nn.Sequential(*parts) if parts else nn.Identity()
