"""Masked-language-model pre-training of a Transformer text encoder on texts without labels; resumable.

Texts are cut into windows, which are drawn anew in each epoch and masked anew in each pass. Only the tokens that are
asked for go through the head over the vocabulary, whose matrix is the token embeddings themselves (tied, as in BERT).

Source: Devlin et al., "BERT: Pre-training of deep bidirectional transformers", NAACL 2019, section 3.1, appendix C.2.
"""

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from trivium.encoders.text.backbone import padded
from trivium.encoders.text.transformer import TransformerText
from trivium.pipeline.progress import Progress
from trivium.pipeline.text_learning.steps import (
    CheckpointError,
    OptimisedSteps,
    TokenIds,
    batches_at_random,
    batches_in_order,
    half_precision,
    load_checkpoint,
    save_checkpoint,
    widened,
)

SHARE = 0.15  # of the tokens are asked for: BERT
MASKED, REPLACED = 0.8, 0.1  # of these become [MASK], and another token; the rest stay as they are: BERT


@dataclass(frozen=True, slots=True)
class MaskingVocabulary:
    """What masking must know of a tokenizer."""

    mask: int  # the token [MASK]
    first: int  # the token [CLS], before a text
    last: int  # the token [SEP], after it
    size: int  # ids are below it
    special: frozenset[int]  # that are never asked for, and never drawn: [PAD], [CLS], [SEP], ...


def masked(
    tokens: NDArray[np.int64], vocabulary: MaskingVocabulary, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Hide some tokens.

    Args:
        tokens: TokenIds, shape (n, t).
        vocabulary: Of the tokenizer.
        random: What is drawn from.

    Returns:
        What the model sees, shape (n, t), and which tokens it is asked for: `SHARE` of those that are not special, to
        the nearest whole number over the batch, at least one if there is any.
    """
    candidates = np.flatnonzero(~np.isin(tokens, list(vocabulary.special)))
    asked = np.zeros(tokens.shape, np.bool_)
    seen = tokens.copy()
    if not len(candidates):
        return seen, asked
    chosen = random.permutation(candidates)[: max(1, round(SHARE * len(candidates)))]
    asked.flat[chosen] = True
    fate = random.random(len(chosen))
    seen.flat[chosen[fate < MASKED]] = vocabulary.mask
    others = chosen[(fate >= MASKED) & (fate < MASKED + REPLACED)]
    ordinary = np.setdiff1d(np.arange(vocabulary.size), list(vocabulary.special))
    seen.flat[others] = random.choice(ordinary, len(others))
    return seen, asked


SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
EVALUATION_TEXTS = 512  # windows that are held out tell enough of a loss
ASKED_ALIKE = 64  # tokens that are asked for are rounded up to few counts, as lengths are (`steps`)
IGNORED = -100  # torch's sign of a row that has no truth


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainingRecipe:
    """How a text encoder is pre-trained."""

    epochs: int = 2
    batch_texts: int = 32
    window_tokens: int = 128  # with [CLS] and [SEP]: BERT's own for 90 % of its steps
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    dropout: float = 0.1
    held_out: float = 0.02  # share of the windows, for the loss that is told
    steps_between_checkpoints: int = 100
    seed: int = 0


@dataclass(slots=True)
class Pretraining:
    """What pre-training gave."""

    losses: list[float] = field(default_factory=list)  # of each epoch, mean
    held_out_losses: list[float] = field(default_factory=list)  # before the first epoch, and after each
    steps: int = 0
    windows: int = 0
    seconds: float = 0.0  # over all runs


class MaskedHead(nn.Module):
    """What says which token was there: a layer, a normalisation, and the token embeddings as the last matrix."""

    def __init__(self, width: int, embedding: int, vocabulary: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, embedding)
        self.norm = nn.LayerNorm(embedding, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, hidden: Tensor, embeddings: Tensor) -> Tensor:
        """Map hidden states (m, width) to scores over the vocabulary (m, v), by embeddings (v, e)."""
        narrowed = self.norm(nn.functional.gelu(self.dense(hidden)))
        scores: Tensor = narrowed @ embeddings.T + self.bias
        return scores


def windows(texts: Sequence[TokenIds], *, most: int, first: int, last: int) -> list[TokenIds]:
    """Cut texts' ids, without special tokens, into windows of at most ``most``, each between two special tokens."""
    found: list[TokenIds] = []
    room = most - 2
    for ids in texts:
        parts = np.array_split(ids, max(1, -(-len(ids) // room)))
        found += [np.concatenate([[first], part, [last]]).astype(np.int64) for part in parts if len(part)]
    return found


def masking_vocabulary(tokenizer: Tokenizer) -> MaskingVocabulary:
    """Return what masking must know of a tokenizer.

    Raises:
        ValueError: If it has no [MASK], [CLS] or [SEP].
    """
    found = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    ids = {token: place for token, place in found.items() if place is not None}
    if missing := [token for token in ("[MASK]", "[CLS]", "[SEP]") if token not in ids]:
        raise ValueError(f"the tokenizer has no {', '.join(missing)}: only word pieces, as BERT's, can be masked")
    return MaskingVocabulary(
        mask=ids["[MASK]"],
        first=ids["[CLS]"],
        last=ids["[SEP]"],
        size=tokenizer.get_vocab_size(),
        special=frozenset(ids.values()),
    )


class Pretrainer:
    """A network, its head, and the windows that they learn from."""

    def __init__(
        self,
        network: TransformerText,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        recipe: PretrainingRecipe,
        *,
        device: str = "cpu",
    ) -> None:
        """Prepare pre-training.

        Args:
            network: Is changed.
            tokenizer: Of word pieces, uncut.
            texts: At least two windows of them.
            recipe: How.
            device: As torch names it.

        Raises:
            ValueError: If the texts are too few, the tokenizer does not fit, or a window is longer than the network's
                positions.
        """
        self._recipe, self._device = recipe, torch.device(device)
        self._vocabulary = masking_vocabulary(tokenizer)
        room = network.positions.num_embeddings
        if not 3 <= recipe.window_tokens <= room:
            raise ValueError(f"a window must have 3 to {room} tokens, as the network has positions, got "
                             f"{recipe.window_tokens}")  # fmt: skip
        plain = [
            np.asarray(encoding.ids, np.int64)
            for encoding in tokenizer.encode_batch(
                [text.encode("utf-8", "replace").decode("utf-8") for text in texts], add_special_tokens=False
            )
        ]
        found = windows(plain, most=recipe.window_tokens, first=self._vocabulary.first, last=self._vocabulary.last)
        if len(found) < 2:
            raise ValueError(
                f"there is too little to learn from: {len(found)} windows of {recipe.window_tokens} tokens"
            )
        order = np.random.default_rng((recipe.seed, 0)).permutation(len(found))
        held = min(EVALUATION_TEXTS, max(1, round(recipe.held_out * len(found))))
        self._held_out = [found[place] for place in order[:held]]
        self._windows = [found[place] for place in order[held:]]
        torch.manual_seed(recipe.seed)
        self.network = network.to(self._device)
        self._head = MaskedHead(
            network.positions.embedding_dim, network.tokens.embedding_dim, network.tokens.num_embeddings
        ).to(self._device)

    def run(self, checkpoints: Path | None = None, *, progress: Progress | None = None) -> Pretraining:
        """Train, from the newest checkpoint on if there is one.

        Args:
            checkpoints: A folder for them; dropped in the end. None: there are none.
            progress: Called with the steps done and their number.

        Raises:
            CheckpointError: If there is a checkpoint of another recipe or other texts, or a damaged one.
        """
        recipe = self._recipe
        lengths = [len(ids) for ids in self._windows]
        per_epoch = math.ceil(len(self._windows) / recipe.batch_texts)
        steps = self._steps(per_epoch * recipe.epochs)
        told = Pretraining(windows=len(self._windows))
        sums = self._resumed(checkpoints, steps, told)
        if not told.held_out_losses:
            told.held_out_losses.append(self.held_out_loss())
        started, before = time.perf_counter(), told.seconds
        while steps.done < per_epoch * recipe.epochs:
            epoch, place = divmod(steps.done, per_epoch)
            if place == 0:
                sums = []
            order = batches_at_random(lengths, size=recipe.batch_texts, seed=(recipe.seed, 1, epoch))
            for chosen in order[place:]:
                steps.begin()
                random = np.random.default_rng((recipe.seed, 2, steps.done))
                scores, truth = self._scores([self._windows[window] for window in chosen], random)
                sums.append(steps.step(nn.functional.cross_entropy(scores, truth)))
                if progress is not None:
                    progress(steps.done, per_epoch * recipe.epochs)
                told.seconds = before + time.perf_counter() - started
                is_last = steps.done % per_epoch == 0
                if checkpoints is not None and not is_last and steps.done % recipe.steps_between_checkpoints == 0:
                    self._keep(checkpoints, steps, told, sums)
            told.losses.append(float(np.mean(sums)))
            told.held_out_losses.append(self.held_out_loss())
            if checkpoints is not None:
                self._keep(checkpoints, steps, told, [])
        told.steps = steps.done
        self.network.eval()
        return told

    def held_out_loss(self) -> float:
        """Return the mean loss of each hidden token of the windows that are held out, always the same ones."""
        self.network.eval()
        total = count = 0.0
        random = np.random.default_rng((self._recipe.seed, 3))
        with torch.inference_mode():
            for chosen in batches_in_order([len(ids) for ids in self._held_out], size=self._recipe.batch_texts):
                scores, truth = self._scores([self._held_out[place] for place in chosen], random)
                total += float(nn.functional.cross_entropy(scores, truth, reduction="sum"))
                count += int((truth != IGNORED).sum())
        self.network.train()
        return total / max(count, 1)

    def _steps(self, count: int) -> OptimisedSteps:
        matrices: list[tuple[str, nn.Parameter]] = []
        vectors: list[tuple[str, nn.Parameter]] = []
        for prefix, module in (("network", self.network), ("head", self._head)):
            for name, parameter in module.named_parameters():
                (matrices if parameter.dim() > 1 else vectors).append((f"{prefix}.{name}", parameter))
        rate = self._recipe.learning_rate
        return OptimisedSteps(
            [
                {"params": matrices, "lr": rate, "weight_decay": self._recipe.weight_decay},
                {"params": vectors, "lr": rate, "weight_decay": 0.0},
            ],
            optimiser="adamw",
            steps=count,
            seed=self._recipe.seed,
        )

    def _scores(self, batch: Sequence[TokenIds], random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return scores over the vocabulary of the tokens that are asked for, (m, v), and what they are, (m,).

        In the end there are some rows more, whose truth is `IGNORED`.
        """
        tokens, mask = padded(batch)
        seen, asked = masked(tokens, self._vocabulary, random)
        places = np.flatnonzero(asked)
        truth = tokens.ravel()[places]
        more = -len(places) % ASKED_ALIKE
        places, truth = np.pad(places, (0, more)), np.pad(truth, (0, more), constant_values=IGNORED)
        rows, columns = np.divmod(places, tokens.shape[1])
        most = self.network.positions.num_embeddings
        given = [torch.from_numpy(widened(array, most=most)).to(self._device) for array in (seen, mask)]
        with half_precision(self._device):
            hidden = self.network.hidden(*given)
            scores = self._head(hidden[torch.from_numpy(rows), torch.from_numpy(columns)], self.network.tokens.weight)
        return scores.float(), torch.from_numpy(truth).to(self._device)

    def _keep(self, folder: Path, steps: OptimisedSteps, told: Pretraining, sums: list[float]) -> None:
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"head.{name}": tensor for name, tensor in self._head.state_dict().items()}
        tensors |= {f"optimiser.{name}": tensor for name, tensor in steps.state().items()}
        save_checkpoint(folder, tensors, {**self._identity(), "done": steps.done, "sums": sums, "told": asdict(told)})

    def _resumed(self, folder: Path | None, steps: OptimisedSteps, told: Pretraining) -> list[float]:
        if folder is None or (found := load_checkpoint(folder)) is None:
            return []
        tensors, state = found
        mine = self._identity()
        if differing := [key for key in mine if state.get(key) != mine[key]]:
            raise CheckpointError(
                f"{folder} holds a run with another {' and '.join(differing)}: finish it as it was begun, or remove it"
            )
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "head": {}, "optimiser": {}}
        for key, tensor in tensors.items():
            part, _, name = key.partition(".")
            parts[part][name] = tensor
        self.network.load_state_dict(parts["network"])
        self._head.load_state_dict(parts["head"])
        steps.restore(parts["optimiser"], done=int(state["done"]))
        before: dict[str, Any] = state["told"]
        told.losses, told.held_out_losses = list(before["losses"]), list(before["held_out_losses"])
        told.seconds = float(before["seconds"])
        return [float(loss) for loss in state["sums"]]

    def _identity(self) -> dict[str, Any]:
        """Return what must be the same for a run to go on."""
        digest = hashlib.sha256(b"".join(ids.tobytes() for ids in (*self._windows, *self._held_out)))
        return {"recipe": asdict(self._recipe), "texts": digest.hexdigest()[:16]}
