"""Text encoders of our own in folders: a model card in numbers, weights as safetensors, and a tokenizer.

    model.json         format, kind ("transformer" or "lstm"), max_tokens, shape (`shapes`)
    model.safetensors  the network's weights
    tokenizer.json     of the tokenizers package

A space names such a folder ``text-model:FOLDER`` as its text backbone, with the revision that it was made for: a hash
of the three files. Importing this loads no torch; on a CPU the network runs as an exported graph, as all others do.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Set
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from tokenizers import Tokenizer

from trivium.encoders.base import WeightsError
from trivium.encoders.files.folders import OwnFolder, check_target, marker_of, written_whole
from trivium.encoders.files.foreign import ForeignFileError, open_foreign, read_foreign_json, shown
from trivium.encoders.files.tensors import open_tensors
from trivium.encoders.files.tokenizers import cut_at, read_foreign_tokenizer
from trivium.encoders.networks.contract import Architecture, Network, Precision
from trivium.encoders.networks.loading import load_network
from trivium.encoders.text.backbone import TextBackbone
from trivium.encoders.text.shapes import LstmShape, Shape, TransformerShape

if TYPE_CHECKING:
    import torch

FORMAT = 1
CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "model.json", "model.safetensors", "tokenizer.json"
FILES = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE)
CLASSIFIER_FILE, CLASSIFIER_WEIGHTS = "classifier.json", "classifier.safetensors"
MORE_FILES = frozenset({CLASSIFIER_FILE, CLASSIFIER_WEIGHTS, "training.json"})  # that training may add
MAX_CONFIG_BYTES = 1 << 20
MAX_WEIGHTS_BYTES = 2 << 30  # more cannot be exported: an ONNX file holds no more
MAX_TEXT_BYTES = 1 << 30
MOST = 1 << 24  # of any size in a shape: what is more was not written by us
OVERLAP_SHARE = 8  # a passage overlaps the next by an eighth of its length, as MiniLM's do
Kind = Literal["transformer", "lstm"]
SHAPES: Mapping[str, type[TransformerShape] | type[LstmShape]] = {"transformer": TransformerShape, "lstm": LstmShape}


class TextModelError(WeightsError):
    """A folder that holds no text model, or not the one that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModelConfig:
    """What a text model is, without its weights."""

    shape: Shape
    max_tokens: int  # of a text; what is beyond is cut off

    @property
    def kind(self) -> Kind:
        """Which network it is."""
        return "transformer" if isinstance(self.shape, TransformerShape) else "lstm"


def read_text_model(folder: Path) -> TextModelConfig:
    """Read and check what a folder's text model is.

    Raises:
        TextModelError: If it is none.
    """
    path = folder / CONFIG_FILE
    try:
        raw = read_foreign_json(path, max_bytes=MAX_CONFIG_BYTES)
    except ForeignFileError as error:
        raise TextModelError(f"{folder} holds no text model: {error}") from error
    if raw.get("format") != FORMAT:
        raise TextModelError(f"{path} has format {shown(raw.get('format'))}, this Trivium reads format {FORMAT}")
    kind, shape, max_tokens = raw.get("kind"), raw.get("shape"), raw.get("max_tokens")
    if not isinstance(kind, str) or kind not in SHAPES or not isinstance(shape, dict):
        raise TextModelError(f"{path}: kind must be one of {', '.join(SHAPES)} with its shape, got {shown(kind)}")
    of_kind = SHAPES[kind]
    wanted = {field.name: field.type for field in fields(of_kind)}
    if wanted.keys() != shape.keys():
        differing = ", ".join(map(shown, sorted(wanted.keys() ^ shape.keys())[:5]))
        raise TextModelError(f"{path}: a shape of kind '{kind}' has {', '.join(wanted)}; what differs: {differing}")
    numbers = {name: value for name, value in shape.items() if wanted[name] is int}
    numbers["max_tokens"] = max_tokens
    for name, value in numbers.items():
        if type(value) is not int or not 1 <= value <= MOST:
            raise TextModelError(f"{path}: {name} must be a whole number of at least 1, got {shown(value)}")
    for name, value in shape.items():
        if wanted[name] is bool and not isinstance(value, bool):
            raise TextModelError(f"{path}: {name} must be true or false, got {shown(value)}")
    if kind == "lstm" and shape["pooling"] not in ("mean", "last"):
        raise TextModelError(f"{path}: pooling must be mean or last, got {shown(shape['pooling'])}")
    if kind == "transformer" and numbers["max_tokens"] > shape["positions"]:
        raise TextModelError(f"{path}: max_tokens is {max_tokens}, there are {shape['positions']} positions")
    if kind == "transformer" and shape["width"] % shape["heads"]:
        raise TextModelError(f"{path}: heads must divide the width, got {shape['heads']} and {shape['width']}")
    ways = 2 if shape.get("both_ways") else 1
    if not shape["projected"] and shape["dim"] != ways * shape["width"]:
        raise TextModelError(
            f"{path}: dim must be {ways * shape['width']} where nothing is projected, got {shape['dim']}"
        )
    config = TextModelConfig(shape=of_kind(**shape), max_tokens=cast(int, max_tokens))
    if (size := _bytes_of_a_text(config)) > MAX_TEXT_BYTES:
        raise TextModelError(
            f"{path}: one text of {config.max_tokens:,} tokens would take {size:,} bytes, at most {MAX_TEXT_BYTES:,} "
            "are given to it: cut texts sooner (max_tokens)"
        )
    return config


def _bytes_of_a_text(config: TextModelConfig) -> int:
    """Return what the largest array of one text's pass takes."""
    shape, tokens = config.shape, config.max_tokens
    if isinstance(shape, TransformerShape):
        return 4 * tokens * max(shape.inner, shape.width, shape.embedding, tokens * shape.heads)
    return 4 * tokens * max(4 * shape.width, shape.embedding)


def revision_of(folder: Path) -> str:
    """Return a name that changes with any of a text model's files: it ends in twelve hex digits of their hash.

    Raises:
        TextModelError: If one cannot be read.
    """
    digest = hashlib.sha256()
    for name in FILES:
        try:
            with open_foreign(folder / name, max_bytes=MAX_WEIGHTS_BYTES) as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except ForeignFileError as error:
            raise TextModelError(f"{folder} holds no text model: {error}") from error
        except OSError as error:
            raise TextModelError(f"{folder} holds no text model: {name} cannot be read ({error.strerror})") from error
    return f"text-model-{digest.hexdigest()[:12]}"


def build_network(config: TextModelConfig, *, dropout: float = 0.0) -> "torch.nn.Module":
    """Make a network of random weights; it takes ids and a mask, and gives vectors."""
    if isinstance(config.shape, TransformerShape):
        from trivium.encoders.text.transformer import TransformerText

        return TransformerText(config.shape, dropout=dropout)
    from trivium.encoders.text.lstm import LstmText

    return LstmText(config.shape, dropout=dropout)


def load_text_network(folder: Path, *, dropout: float = 0.0) -> "torch.nn.Module":
    """Load a folder's network.

    Raises:
        TextModelError: If there is none, or its weights do not fit.
    """
    config, path = read_text_model(folder), folder / WEIGHTS_FILE
    try:
        with open_tensors(path, max_bytes=MAX_WEIGHTS_BYTES) as file:
            _check_shapes(config, file.shapes)
            state = file.read()
    except ForeignFileError as error:
        raise TextModelError(f"{folder} holds no text model that can be used: {error}") from error
    import torch

    module = build_network(config, dropout=dropout)
    module.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state.items()})
    if not all(bool(weight.isfinite().all()) for weight in module.parameters()):
        raise TextModelError(f"{path} holds NaN or infinity")
    return module.eval()


def _check_shapes(config: TextModelConfig, found: Mapping[str, tuple[int, ...]]) -> None:
    """Compare what a file holds with what the network needs, before either is made.

    Raises:
        ForeignFileError: If they differ.
    """
    does_not_fit = f"{WEIGHTS_FILE} does not fit its {CONFIG_FILE}:"
    if config.shape.layers > len(found):  # modules take memory even if their weights take none
        raise ForeignFileError(f"{does_not_fit} {config.shape.layers:,} layers, and {len(found):,} tensors")
    import torch

    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in build_network(config).state_dict().items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ForeignFileError(
                f"{does_not_fit} {shown(name)} has shape {found.get(name)}, needed is {wanted.get(name)}"
            )


def save_text_model(
    folder: Path,
    config: TextModelConfig,
    state: "Mapping[str, torch.Tensor]",
    tokenizer: str,
    *,
    more: Mapping[str, str | bytes] | None = None,
) -> None:
    """Write a text model's folder, whole or not at all.

    Args:
        folder: Must not exist, unless it holds a text model and nothing else, which is replaced.
        config: Of the network.
        state: Its weights.
        tokenizer: Its tokenizer's JSON.
        more: Other files, by name: some of `MORE_FILES`.

    Raises:
        TextModelError: If the folder holds anything else.
        OSError: If it cannot be written.
    """
    from safetensors.torch import save_file

    more = more or {}
    assert more.keys() <= MORE_FILES  # else what is written could not be replaced
    with written_whole(folder, OWN) as draft:
        written = {"format": FORMAT, "kind": config.kind, "max_tokens": config.max_tokens}
        (draft / CONFIG_FILE).write_text(json.dumps({**written, "shape": asdict(config.shape)}, indent=1) + "\n")
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, draft / WEIGHTS_FILE)
        (draft / TOKENIZER_FILE).write_text(tokenizer, encoding="utf-8")
        for name, content in more.items():
            (draft / name).write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        read_text_model(draft)


def check_model_target(folder: Path) -> None:
    """Refuse a folder that holds anything but a text model, before hours are spent.

    Raises:
        TextModelError: If it does.
    """
    check_target(folder, OWN)


def _own_names(folder: Path) -> Set[str] | None:
    is_ours = marker_of(folder, CONFIG_FILE, formats=FORMAT, kinds=SHAPES.keys()) is not None
    return {*FILES, *MORE_FILES} if is_ours else None


OWN = OwnFolder(what="text model", marker=CONFIG_FILE, refused=TextModelError, names=_own_names)


def load_text_model(
    folder: Path,
    *,
    device: str = "cpu",
    precision: Precision = "float32",
    announce: Callable[[str], None] | None = None,
) -> TextBackbone:
    """Load a folder's text model to encode with.

    Args:
        folder: Of the model.
        device: See `load_network`.
        precision: See `load_network`.
        announce: Called with one line before work that is done once.

    Raises:
        TextModelError: If there is none, or its weights do not fit.
        WeightsError: If it cannot be exported.
    """
    config = read_text_model(folder)

    def examples() -> list[np.ndarray]:
        return [np.array([[1, 1, 1, 1], [1, 1, 0, 0]]), np.array([[1, 1, 1, 1], [1, 1, 0, 0]])]

    axes = {0: "n", 1: "t"}
    architecture = Architecture(
        name=revision_of(folder),
        build=lambda: load_text_network(folder),
        inputs={"tokens": axes, "mask": axes},
        outputs=["pooled"],
        examples=examples,
        longest=config.max_tokens,
    )
    network = load_network(architecture, device=device, precision=precision, announce=announce)
    return text_backbone(folder, config, network)


def text_backbone(folder: Path, config: TextModelConfig, network: Network) -> TextBackbone:
    """Put a folder's network and its tokenizer together.

    Raises:
        TextModelError: If the tokenizer cannot be read.
    """
    passage = max(4, config.max_tokens // 2)
    return TextBackbone(
        network,
        lambda cut: read_tokenizer(folder, vocabulary=config.shape.vocabulary, max_tokens=cut),
        dim=config.shape.dim,
        max_tokens=config.max_tokens,
        passage_tokens=passage,
        overlap_tokens=max(1, passage // OVERLAP_SHARE),
    )


def read_tokenizer(folder: Path, *, vocabulary: int | None = None, max_tokens: int | None = None) -> Tokenizer:
    """Read a folder's tokenizer.

    Args:
        folder: Of a text model, or of MiniLM's weights.
        vocabulary: How many tokens the network knows, which must be enough; None: it is not asked.
        max_tokens: Longer texts are cut there; None: they are not.

    Raises:
        TextModelError: If it cannot be read.
    """
    path = folder / TOKENIZER_FILE
    try:
        tokenizer = read_foreign_tokenizer(path, vocabulary=vocabulary)
        if max_tokens is not None:
            cut_at(tokenizer, path, max_tokens=max_tokens)
    except ForeignFileError as error:
        raise TextModelError(str(error)) from error
    return tokenizer
