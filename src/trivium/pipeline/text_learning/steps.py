"""What all training of text encoders shares: batches of tokens, optimisers and their schedule, checkpoints.

Batches have texts of like length, in an order that one seed decides. Checkpoints are tensors as safetensors and a JSON
file that names them; whole or not at all, never pickled. The tensors are written first, under a name of their own; then
one rename makes the JSON file say that they are the newest. A run that is killed at any moment finds the checkpoint
before or the one after.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from trivium.encoders.files.foreign import read_foreign_json
from trivium.encoders.files.reading import file_sha256
from trivium.encoders.files.tensors import read_tensors
from trivium.encoders.files.writing import make_folder, write_durably
from trivium.encoders.text.backbone import padded
from trivium.pipeline.progress import Progress

TokenIds = NDArray[np.int64]  # (t,), of one text
# Lengths are rounded up to few: torch keeps what it compiles for each shape (oneDNN), and memory would grow for hours.
TOKENS_ALIKE = 16
TOGETHER = 16  # batches that are sorted by length at a time: less padding, and still much chance


def uncut(tokenizer: str) -> Tokenizer:
    """Make a tokenizer of its JSON that neither cuts nor fills up."""
    made = Tokenizer.from_str(tokenizer)
    made.no_padding()
    made.no_truncation()
    return made


def tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> list[TokenIds]:
    """Return the ids of texts, uncut; a text without a token is what is not known."""
    encodings = tokenizer.encode_batch([text.encode("utf-8", "replace").decode("utf-8") for text in texts])
    return [np.asarray(encoding.ids or [1], np.int64) for encoding in encodings]


def cut(ids: TokenIds, *, most: int, head: int | None = None) -> TokenIds:
    """Cut a text's ids: of a longer one the first ``head`` stay and the last ones; the first ones if None.

    Source:
        Sun et al., "How to fine-tune BERT for text classification?", 2019: reviews are best cut in the middle.
    """
    if len(ids) <= most:
        return ids
    head = most if head is None else min(head, most)
    return np.concatenate([ids[:head], ids[len(ids) - (most - head) :]])


def batches_in_order(lengths: Sequence[int], *, size: int) -> Iterator[NDArray[np.int64]]:
    """Yield places of all texts, ``size`` at a time, by length."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


def batches_at_random(lengths: Sequence[int], *, size: int, seed: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """Return places of all texts, each once, in random batches of ``size`` whose texts are of like length.

    Args:
        lengths: Of the texts.
        size: Of a batch; the last one may be shorter.
        seed: Decides the order: of a run and of its epoch.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(lengths))
    of = np.asarray(lengths)
    found: list[NDArray[np.int64]] = []
    for start in range(0, len(order), size * TOGETHER):
        some = order[start : start + size * TOGETHER]
        some = some[np.argsort(of[some], kind="stable")]
        found += [some[place : place + size] for place in range(0, len(some), size)]
    return [found[place] for place in random.permutation(len(found))]


def as_tensors(batch: Sequence[TokenIds], device: torch.device, *, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Return ids (n, t) and the mask (n, t) of a batch.

    Args:
        batch: Of n texts.
        device: Where they go.
        most: t is rounded up to one of few lengths, up to this one; None: it is that of the longest text.
    """
    tokens, mask = (widened(array, most=most or 0) for array in padded(batch))
    return torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device)


def widened(array: NDArray[np.int64], *, most: int) -> NDArray[np.int64]:
    """Fill (n, t) up with zeros to a length that many batches share, but not beyond ``most``."""
    length = array.shape[1]
    more = min(-length % TOKENS_ALIKE, most - length)
    return np.pad(array, ((0, 0), (0, max(0, more))))


Optimiser: TypeAlias = Literal["sgd", "adamw"]
MOMENTUM = 0.9
LARGEST_GRADIENT = 1.0  # of all weights together: BERT's
WARM_UP = 0.1  # of all steps: BERT's recipe for fine-tuning


class OptimisedSteps:
    """Steps of an optimiser whose learning rate rises, and then falls to 0; each step's chance is its own."""

    def __init__(
        self,
        groups: Iterable[Mapping[str, Any]],
        *,
        optimiser: Optimiser,
        steps: int,
        seed: int,
        warm_up: float = WARM_UP,
    ) -> None:
        """Prepare an optimiser.

        Args:
            groups: Named parameters, as pairs, under ``params``, and their ``lr`` and ``weight_decay``.
            optimiser: Which.
            steps: How many there will be.
            seed: With the number of a step, it decides all that is drawn in it: a run that goes on draws the same.
            warm_up: Share of the steps in which the learning rate rises.
        """
        self._named: dict[str, nn.Parameter] = {}
        prepared = []
        for group in groups:
            named = dict(group["params"])
            self._named |= named
            prepared.append({**group, "params": list(named.values())})
        if optimiser == "sgd":
            self._optimiser: torch.optim.Optimizer = torch.optim.SGD(prepared, momentum=MOMENTUM)
        else:
            self._optimiser = torch.optim.AdamW(prepared)
        self._rates = [group["lr"] for group in self._optimiser.param_groups]
        self._steps, self._seed = steps, seed
        self._rising = max(1, int(warm_up * steps))
        self.done = 0

    def begin(self) -> None:
        """Set chance for the next step."""
        torch.manual_seed(self._seed * 1_000_003 + self.done)

    def step(self, loss: Tensor) -> float:
        """Go one step against a loss's gradient; return the loss."""
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._named.values(), LARGEST_GRADIENT)
        share = self._share(self.done)
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        self._optimiser.step()
        self.done += 1
        return float(loss.detach())

    def state(self) -> dict[str, Tensor]:
        """Return what the optimiser remembers, by names."""
        found = {}
        for name, parameter in self._named.items():
            for key, value in self._optimiser.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    found[f"{name}|{key}"] = value
        return found

    def restore(self, state: Mapping[str, Tensor], *, done: int) -> None:
        """Go on where `state` was taken, after so many steps."""
        for key, value in state.items():
            name, _, of = key.rpartition("|")
            parameter = self._named[name]
            kept: dict[str, Any] = self._optimiser.state[parameter]
            kept[of] = value.clone() if of == "step" else value.clone().to(parameter.device)
        self.done = done

    def _share(self, step: int) -> float:
        """Return the learning rate's share: rising linearly, then falling so."""
        if step < self._rising:
            return (step + 1) / self._rising
        return max(0.0, (self._steps - step) / max(1, self._steps - self._rising))


def learn_epochs(
    network: nn.Module,
    steps: OptimisedSteps,
    loss: Callable[[NDArray[np.int64]], Tensor],
    lengths: Sequence[int],
    *,
    epochs: int,
    size: int,
    seed: int,
    progress: Progress | None,
) -> Iterator[tuple[int, float]]:
    """Train a network epoch by epoch; yield each one's number, from 1, and its mean loss.

    Args:
        network: Learns; may be tried out between the epochs.
        steps: Of its parameters.
        loss: Of the texts at some places.
        lengths: Of all texts.
        epochs: How many.
        size: Of a batch.
        seed: Of the order.
        progress: Called with the steps done and their number.
    """
    total = epochs * -(-len(lengths) // size)
    for epoch in range(1, epochs + 1):
        network.train()
        losses = []
        for chosen in batches_at_random(lengths, size=size, seed=(seed, epoch)):
            steps.begin()
            losses.append(steps.step(loss(chosen)))
            if progress is not None:
                progress(steps.done, total)
        yield epoch, float(np.mean(losses))


def half_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Compute products in bfloat16 where the device is faster so: weights, sums and losses stay in float32.

    Measured on a processor that has such instructions: 2.0 s instead of 4.2 s for a step of MiniLM (docs).
    """
    if device.type == "cpu" and not computes_bfloat16():
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def computes_bfloat16() -> bool:
    """Whether this processor has instructions for products in bfloat16."""
    cpu: Any = torch.cpu
    return bool(cpu._is_avx512_bf16_supported())


def layer_rates(network: nn.Module, *, rate: float, decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """Return groups of a network's parameters whose learning rate falls from its last layer down to its embeddings.

    Args:
        network: With a list ``layers``, or without: then all have the same.
        rate: Of what comes after the layers.
        decay: By which each layer's is multiplied, and then the next lower one's.
        weight_decay: Of matrices; vectors (biases, normalisations) have none.

    Source:
        Howard, Ruder, "Universal language model fine-tuning for text classification", ACL 2018 (discriminative rates).
    """
    layers = getattr(network, "layers", None)
    count = len(layers) if isinstance(layers, nn.ModuleList) else 0
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        depth = 0  # above all layers
        if count and name.startswith("layers."):
            depth = count - int(name.split(".")[1])
        elif count and not name.startswith("project"):
            depth = count + 1
        is_matrix = parameter.dim() > 1
        key = depth, is_matrix
        if key not in groups:
            groups[key] = {
                "params": [],
                "lr": rate * math.pow(decay, depth),
                "weight_decay": weight_decay if is_matrix else 0.0,
            }
        groups[key]["params"].append((name, parameter))
    return list(groups.values())


STATE_FILE = "checkpoint.json"
TENSORS = re.compile(r"checkpoint-[0-9a-f]{16}\.safetensors")
MAX_BYTES = 64 << 30
FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used."""


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Keep a checkpoint, and drop the one before.

    Args:
        folder: Made if it is not there.
        tensors: By name.
        state: What JSON can hold.

    Raises:
        OSError: If the disk is full or fails; the one before is still there then.
    """
    from safetensors.torch import save

    make_folder(folder)
    data = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
    name = f"checkpoint-{hashlib.sha256(data).hexdigest()[:16]}.safetensors"
    written = write_durably(folder / name, lambda write: write(data))
    told = {"format": FORMAT, "tensors": name, "sha256": written.sha256, "state": state}
    write_durably(folder / STATE_FILE, lambda write: write(json.dumps(told, indent=1).encode()))
    _drop_tensors(folder, but=name)


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the newest checkpoint's tensors and state; None if there is none.

    Raises:
        CheckpointError: If it is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        told = read_foreign_json(path)
        if told["format"] != FORMAT:
            raise CheckpointError(f"{path} has format {told['format']!r}, this Trivium reads format {FORMAT}")
        name, state = str(told["tensors"]), dict(told["state"])
        if TENSORS.fullmatch(name) is None or file_sha256(folder / name) != told["sha256"]:
            raise CheckpointError(f"{folder / name} is not what was written: remove {folder} to begin anew")
        found = read_tensors(folder / name, max_bytes=MAX_BYTES)
        return {key: torch.from_numpy(tensor) for key, tensor in found.items()}, state
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be used: {error}; remove {folder} to begin anew") from error


def drop_checkpoint(folder: Path) -> None:
    """Remove what a run that has come to its end does not need."""
    if not folder.is_dir() or folder.is_symlink():
        return
    (folder / STATE_FILE).unlink(missing_ok=True)
    _drop_tensors(folder)
    if not any(folder.iterdir()):
        folder.rmdir()


def _drop_tensors(folder: Path, *, but: str = "") -> None:
    """Remove what `save_checkpoint` wrote, and nothing that only looks like it."""
    for file in folder.glob("checkpoint-*.safetensors"):
        if file.name != but and TENSORS.fullmatch(file.name):
            file.unlink()
