"""open_clip's models: a text and an image encoder that share one space, by name or from a local checkpoint.

What has to be known of a model before it is used (its width, its preprocessing, a hash of its weights) is kept in the
cache, so that a text query on a CPU loads neither torch nor open_clip.
"""

import difflib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Backbone, DecodeError, Features, Modality, Prepared
from trivium.encoders.clip_tokenizer import ClipTokenizer
from trivium.encoders.graphs import Architecture, Precision
from trivium.encoders.image import image_backbone
from trivium.encoders.networks import PLAIN, Network, device_kind, load_network
from trivium.encoders.pictures import Fit
from trivium.encoders.text import passes_by_length
from trivium.encoders.weights import WeightsError, cache_folder

PREFIX = "open-clip:"
REVISION = 2  # of what we do around the models: another one makes other vectors
TOKENS_PER_PASS = {"cpu": 1024, "gpu": 32_768}  # a GPU's network cuts them as its memory is
GRAPH_BYTES = 1_900_000_000  # an ONNX file holds at most 2 GiB; beyond that torch runs the tower, also on a CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFacts:
    """What is known of a model without loading it."""

    name: str
    pretrained: str
    dim: int
    weights_sha256: str
    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str  # bicubic or bilinear
    resize_mode: str  # shortest, squash or longest
    fill_color: int  # around a picture that is fitted by its longest side
    context_length: int
    is_plain_bpe: bool  # CLIP's own tokenizer
    can_cut: bool
    config_sha256: str
    image_bytes: int  # of the towers' weights in float32
    text_bytes: int

    @property
    def revision(self) -> str:
        """Changes with whatever moves a vector."""
        facts = asdict(self)
        del facts["pretrained"]  # a checkpoint may be moved
        return hashlib.sha256(json.dumps([REVISION, facts], sort_keys=True).encode()).hexdigest()[:12]

    @property
    def space_name(self) -> str:
        """Name the space, without the folder of a local checkpoint."""
        return f"{PREFIX}{self.name}/{Path(self.pretrained).stem if '/' in self.pretrained else self.pretrained}"


class OpenClip:
    """A model by its reference, loaded as far as it is needed."""

    def __init__(self, reference: str, *, announce: Callable[[str], None] | None = None) -> None:
        """Find out about a model.

        Args:
            reference: ``open-clip:MODEL/PRETRAINED``; a path after the slash is a local checkpoint.
            announce: Told before a download or other work that is done once.

        Raises:
            WeightsError: If there is no such model, or its weights cannot be had.
        """
        self.reference = reference
        name, slash, pretrained = reference.removeprefix(PREFIX).partition("/")
        if not slash or not name or not pretrained:
            raise WeightsError(
                f"'{reference}' is no open_clip model: write {PREFIX}MODEL/PRETRAINED, or a path after /"
            )
        self._name, self._pretrained = name, pretrained
        self._announce = announce
        self.facts = self._facts()

    def backbone(self, modality: Modality, *, device: str = "cpu", precision: Precision = "float32") -> Backbone:
        """Load one of the towers.

        Raises:
            WeightsError: If the weights cannot be had.
        """
        architecture = self._image_architecture() if modality == "image" else self._text_architecture()
        size_bytes = self.facts.image_bytes if modality == "image" else self.facts.text_bytes
        if device == "cpu" and size_bytes > GRAPH_BYTES:
            device = PLAIN
        network = load_network(architecture, device=device, precision=precision, announce=self._announce)
        if modality == "image":
            return image_backbone(network, fit_of(self.facts), dim=self.facts.dim, heads={}, layers={})
        return ClipTexts(self.facts, network)

    @cached_property
    def _model(self) -> Any:
        from trivium.encoders.clip_towers import load_model

        self._check_name()
        if self._announce is not None:
            self._announce(f"loading open_clip's {self._name} with {self._pretrained}")
        return load_model(self._name, self._pretrained)

    def _check_name(self) -> None:
        try:
            import open_clip
        except ImportError as error:
            raise WeightsError("open_clip is not installed: `pip install open-clip-torch`") from error
        names = open_clip.list_models()
        if self._name not in names:
            near = difflib.get_close_matches(self._name, names, n=5, cutoff=0.3)
            raise WeightsError(f"open_clip has no model '{self._name}', nearest are: {', '.join(near) or 'none'}")

    def _facts(self) -> ClipFacts:
        path = Path(self._pretrained)
        state = ""
        if path.is_absolute():
            try:
                status = path.stat()
            except OSError as error:
                raise WeightsError(f"there is no checkpoint {path}: {error.strerror}") from error
            state = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
        key = hashlib.sha256(f"{REVISION}|{self.reference}|{state}".encode()).hexdigest()[:24]
        cached = cache_folder() / "open-clip" / f"{key}.json"
        try:
            known: dict[str, Any] = json.loads(cached.read_text())
            return ClipFacts(**{**known, "mean": tuple(known["mean"]), "std": tuple(known["std"])})
        except (OSError, ValueError, TypeError, KeyError):
            facts = self._found_facts()
        cached.parent.mkdir(parents=True, exist_ok=True)
        draft = cached.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(asdict(facts)))
        os.replace(draft, cached)
        return facts

    def _found_facts(self) -> ClipFacts:
        self._check_name()
        import open_clip

        from trivium.encoders.clip_towers import can_cut, checkpoint_file, has_plain_tokenizer, wants_quick_gelu

        path = Path(self._pretrained)
        if not path.is_absolute() and self._announce is not None:
            self._announce(f"asking open_clip for {self._name} with {self._pretrained}, which it downloads once")
        with checkpoint_file(self._name, self._pretrained).open("rb") as file:
            weights_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        model = self._model
        config: dict[str, Any] = open_clip.get_model_config(self._name) or {}
        config["quick_gelu"] = config.get("quick_gelu", False) or wants_quick_gelu(self._name, self._pretrained)
        picture: dict[str, Any] = open_clip.get_model_preprocess_cfg(model) or {}
        size = picture["size"]
        sides = {size} if isinstance(size, int) else set(size)
        if len(sides) != 1:
            raise WeightsError(f"{self._name} takes pictures of {size}, only squares are known")
        image_bytes = 4 * sum(weight.numel() for weight in model.visual.parameters())
        return ClipFacts(
            name=self._name,
            pretrained=self._pretrained,
            dim=int(config["embed_dim"]),
            weights_sha256=weights_sha256,
            side=int(sides.pop()),
            mean=_of_channels(picture.get("mean") or open_clip.OPENAI_DATASET_MEAN),
            std=_of_channels(picture.get("std") or open_clip.OPENAI_DATASET_STD),
            interpolation=picture.get("interpolation") or "bicubic",
            resize_mode=picture.get("resize_mode") or "shortest",
            fill_color=int(picture.get("fill_color") or 0),
            context_length=int(config.get("text_cfg", {}).get("context_length", 77)),
            is_plain_bpe=has_plain_tokenizer(self._name),
            can_cut=can_cut(model),
            config_sha256=hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
            image_bytes=image_bytes,
            text_bytes=4 * sum(weight.numel() for weight in model.parameters()) - image_bytes,
        )

    def _image_architecture(self) -> Architecture:
        facts = self.facts

        def build() -> Any:
            from trivium.encoders.clip_towers import ImageTower

            return ImageTower(self._model, facts.mean, facts.std)

        return Architecture(
            name=f"{_file_name(facts.name)}-image-{facts.revision}",
            build=build,
            inputs={"pixels": {0: "n"}},
            outputs=["pooled"],
            examples=lambda: [np.random.default_rng(0).integers(0, 256, (2, 3, facts.side, facts.side), np.uint8)],
        )

    def _text_architecture(self) -> Architecture:
        facts = self.facts

        def build() -> Any:
            from trivium.encoders.clip_towers import TextTower

            return TextTower(self._model)

        def examples() -> list[NDArray[Any]]:
            tokens = np.zeros((2, 9 if facts.can_cut else facts.context_length), np.int64)
            for row, text in enumerate(tokenizer_of(facts)(["a photo of a cat", "two words"])):
                tokens[row, : len(text)] = text[: tokens.shape[1]]
            return [tokens]

        return Architecture(
            name=f"{_file_name(facts.name)}-text-{facts.revision}",
            build=build,
            inputs={"tokens": {0: "n", 1: "t"} if facts.can_cut else {0: "n"}},
            outputs=["pooled"],
            examples=examples,
            longest=facts.context_length if facts.can_cut else None,
        )


class ClipTexts(Backbone):
    """The text tower of an open_clip model.

    A causal tower that is read at the end token is run on no more positions than the longest text of a pass has: what
    comes after the end token cannot be seen from it.
    """

    modality: Modality = "text"

    def __init__(self, facts: ClipFacts, network: Network) -> None:
        self.dim = facts.dim
        self._facts = facts
        self._network = network
        self._tokenizer = tokenizer_of(facts)
        self._tokens_per_pass = TOKENS_PER_PASS[device_kind(network.device)]

    def prepare(self, item: Any, /) -> Prepared:
        """Return the token ids of a text, shape (t,).

        Raises:
            DecodeError: If the text is empty or blank.
        """
        (ids,) = self.prepare_all([item])
        return ids

    def prepare_all(self, items: Sequence[Any], /) -> list[Prepared]:
        """Do what `prepare` does for many texts in one call."""
        for item in items:
            if not isinstance(item, str):
                raise TypeError(f"a text item must be a str, got {type(item).__name__}")
            if not item.strip():
                raise DecodeError("the text is empty")
        # Broken bytes from a command line or a file name are surrogates, which the tokenizer refuses.
        return list(self._tokenizer([item.encode("utf-8", "replace").decode("utf-8") for item in items]))

    def features(self, batch: Sequence[Prepared], /) -> Features:
        """Return the text embeddings, shape (n, d), not normalised."""
        pooled = np.empty((len(batch), self.dim), np.float32)
        for rows in passes_by_length([len(ids) for ids in batch], numbers_per_pass=self._tokens_per_pass):
            longest = max(len(batch[row]) for row in rows) if self._facts.can_cut else self._facts.context_length
            tokens = np.zeros((len(rows), longest), np.int64)
            for place, row in enumerate(rows):
                tokens[place, : len(batch[row])] = batch[row]
            (pooled[rows],) = self._network(tokens)
        return Features(pooled=pooled)


def fit_of(facts: ClipFacts) -> Fit:
    """Return how a model's pictures become squares."""
    return Fit(
        side=facts.side,
        mode=facts.resize_mode,
        is_bilinear=facts.interpolation == "bilinear",
        fill=facts.fill_color,
    )


def tokenizer_of(facts: ClipFacts) -> Callable[[Sequence[str]], Sequence[NDArray[np.int64]]]:
    """Return what turns texts into ids: ours where the model has CLIP's, else open_clip's own."""
    if facts.is_plain_bpe:
        return ClipTokenizer(facts.context_length)
    from trivium.encoders import clip_towers

    own = clip_towers.tokenizer_of(facts.name)
    return lambda texts: list(own(list(texts)).numpy())


def _of_channels(value: Any) -> tuple[float, float, float]:
    red, green, blue = value if isinstance(value, list | tuple) else (value,) * 3
    return (float(red), float(green), float(blue))


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
