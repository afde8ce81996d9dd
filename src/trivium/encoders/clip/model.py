"""open_clip's models: two encoders that share one space, of texts and of pictures, or (CLAP) of texts and of sounds.

How they are named: `reference`. What has to be known of a model before it is used (its width, its preprocessing, a
hash of its weights) is kept in the cache, so that a text query on a CPU loads neither torch nor open_clip.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Backbone, Modality, WeightsError
from trivium.encoders.clip.facts import ClipFacts, SoundFacts, facts_file, fit_of, keep, kept_facts
from trivium.encoders.clip.reference import FOLDER, HUB, PREFIX, locate
from trivium.encoders.clip.texts import ClipTexts, tokenizer_of
from trivium.encoders.devices import PLAIN
from trivium.encoders.files.reading import file_sha256
from trivium.encoders.image.backbone import image_backbone
from trivium.encoders.networks.contract import Architecture, Precision, device_kind
from trivium.encoders.networks.fetching import fetching_for
from trivium.encoders.networks.loading import load_network

GRAPH_BYTES = 1_900_000_000  # an ONNX file holds at most 2 GiB; beyond that torch runs the tower, also on a CPU


class OpenClip:
    """A model by its reference, loaded as far as it is needed."""

    def __init__(self, reference: str, *, announce: Callable[[str], None] | None = None, is_named: bool = True) -> None:
        """Find out about a model.

        Args:
            reference: See `reference`.
            announce: Told before a download or other work that is done once.
            is_named: The user named it; else it was found in a file from elsewhere, and nothing is fetched for it.

        Raises:
            WeightsError: If there is no such model, or its weights cannot be had.
        """
        self._announce = announce
        # A folder names others on the Hub, which the user has not.
        self._is_named = is_named and not reference.startswith(f"{PREFIX}{FOLDER}")
        with fetching_for(reference, is_named=self._is_named):
            self._source = locate(reference, announce=announce)
            self.reference = self._source.reference  # of a model of the Hub with its commit, so that it stays the same
            self._known = kept_facts(self._source)
            if self._known is None:
                self.facts = self._found_facts()
                keep(self.facts, self._source)
            else:
                self.facts = self._known

    def backbone(self, modality: Modality, *, device: str = "cpu", precision: Precision = "float32") -> Backbone:
        """Load one of the towers.

        Raises:
            WeightsError: If the model has none for the modality, or its weights cannot be had.
        """
        with fetching_for(self.reference, is_named=self._is_named):
            return self._backbone(modality, device, precision)

    def _backbone(self, modality: Modality, device: str, precision: Precision) -> Backbone:
        facts = self.facts
        if modality not in facts.modalities:
            raise WeightsError(f"{self.reference} has towers for {' and '.join(facts.modalities)}, not for {modality}")
        architectures = {"text": self._text_architecture, "image": self._image_architecture}
        size_bytes = {"text": facts.text_bytes, "image": facts.image_bytes, "audio": facts.audio_bytes}[modality]
        # open_clip's audio towers cannot be exported: tracing takes the number of blocks in a pass for a constant.
        if device == "cpu" and (size_bytes > GRAPH_BYTES or modality == "audio"):
            device = PLAIN
        architecture = architectures.get(modality, self._sound_architecture)()
        network = load_network(architecture, device=device, precision=precision, announce=self._announce)
        if modality == "image":
            return image_backbone(network, fit_of(facts), dim=facts.dim, heads={}, layers={})
        if facts.sound is not None and modality == "audio":
            from trivium.encoders.audio.backbone import AudioBackbone
            from trivium.encoders.clip.sounds import BLOCKS_PER_PASS, ClipMel

            mel = ClipMel(facts.sound, blocks_per_pass=BLOCKS_PER_PASS[device_kind(network.device)])
            return AudioBackbone(network, mel, dim=facts.dim, heads={})
        return ClipTexts(facts, network)

    @cached_property
    def _model(self) -> Any:
        loading = _loading()
        # Also when the facts are known already: a tower may need what the Hub's cache has lost since.
        loading.config_of(self._source, announce=self._announce)
        if self._known is not None:
            self._check_weights(self._known)
        if self._announce is not None:
            self._announce(f"loading open_clip's {self._source.name} with {self._source.pretrained}")
        return loading.load_model(self._source)

    def _check_weights(self, known: ClipFacts) -> None:
        """Refuse weights whose bytes are not those that the facts, and so the revision of all vectors, are of."""
        file = _loading().checkpoint_file(self._source)
        if file_sha256(file.resolve()) != known.weights_sha256:
            raise WeightsError(
                f"{file} is not what it was when {self.reference} was first used: it is damaged, or was replaced. "
                f"Delete it and fetch it again; if it is meant to be another one, delete {facts_file(self._source)}"
            )

    def _found_facts(self) -> ClipFacts:
        loading = _loading()
        source, announce = self._source, self._announce
        config = loading.config_of(source, announce=announce)
        if announce is not None and source.snapshot is None and not source.state:
            announce(f"asking open_clip for {source.name} with {source.pretrained}, which it downloads once")
        weights_sha256 = file_sha256(loading.checkpoint_file(source).resolve())
        is_plain_bpe, tokenizer = loading.tokenizer_facts(source, config, announce=announce)
        model = self._model
        config["quick_gelu"] = config.get("quick_gelu", False) or loading.wants_quick_gelu(source)
        sizes = {name: _float32_bytes(getattr(model, name, None)) for name in ("visual", "audio")}
        from trivium.encoders.clip.towers import can_cut

        return ClipFacts(
            name=source.name,
            pretrained=source.pretrained,
            dim=int(config["embed_dim"]),
            weights_sha256=weights_sha256,
            **_picture_facts(source.name, model),
            context_length=int(config["text_cfg"].get("context_length", loading.CONTEXT_LENGTH)),
            is_plain_bpe=is_plain_bpe,
            can_cut=can_cut(model),
            config_sha256=hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
            image_bytes=sizes["visual"],
            text_bytes=_float32_bytes(model) - sum(sizes.values()),
            audio_bytes=sizes["audio"],
            tokenizer=tokenizer,
            sound=_sound_facts(source.name, model),
        )

    def _image_architecture(self) -> Architecture:
        facts = self.facts

        def build() -> Any:
            from trivium.encoders.clip.towers import ImageTower

            return ImageTower(self._model, facts.mean, facts.std)

        return Architecture(
            name=self._file_name("image"),
            build=build,
            inputs={"pixels": {0: "n"}},
            outputs=["pooled"],
            examples=lambda: [np.random.default_rng(0).integers(0, 256, (2, 3, facts.side, facts.side), np.uint8)],
        )

    def _text_architecture(self) -> Architecture:
        facts = self.facts

        def build() -> Any:
            from trivium.encoders.clip.towers import TextTower

            return TextTower(self._model)

        def examples() -> list[NDArray[Any]]:
            tokens = np.zeros((2, 9 if facts.can_cut else facts.context_length), np.int64)
            for row, text in enumerate(tokenizer_of(facts)(["a photo of a cat", "two words"])):
                tokens[row, : len(text)] = text[: tokens.shape[1]]
            return [tokens]

        return Architecture(
            name=self._file_name("text"),
            build=build,
            inputs={"tokens": {0: "n", 1: "t"} if facts.can_cut else {0: "n"}},
            outputs=["pooled"],
            examples=examples,
            longest=facts.context_length if facts.can_cut else None,
        )

    def _sound_architecture(self) -> Architecture:
        sound = self.facts.sound
        assert sound is not None
        shape = (2, sound.block_samples // sound.hop_samples + 1, sound.mels)

        def build() -> Any:
            from trivium.encoders.clip.towers import SoundTower

            return SoundTower(self._model)

        return Architecture(
            name=self._file_name("audio"),
            build=build,
            inputs={"log_mel": {0: "n"}},
            outputs=["pooled"],
            examples=lambda: [np.random.default_rng(0).random(shape, np.float32) * 100 - 100],
        )

    def _file_name(self, tower: str) -> str:
        name = self.facts.name.removeprefix(HUB)
        clean = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
        return f"{clean}-{tower}-{self.facts.revision}"


def _loading() -> Any:
    try:
        import open_clip  # noqa: F401
    except ImportError as error:
        raise WeightsError("open_clip is not installed: `pip install open-clip-torch`") from error
    from trivium.encoders.clip import checkpoint as clip_loading

    return clip_loading


def _picture_facts(name: str, model: Any) -> Mapping[str, Any]:
    """Return how a model's pictures are made ready; nothings if it takes none."""
    import open_clip

    zeros = (0.0, 0.0, 0.0)
    if not hasattr(model, "visual"):
        return {
            **{"side": 0, "mean": zeros, "std": zeros},
            **{"interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0},
        }
    picture: dict[str, Any] = open_clip.get_model_preprocess_cfg(model) or {}
    size = picture["size"]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise WeightsError(f"{name} takes pictures of {size}, only squares are known")
    return {
        "side": int(sides.pop()),
        "mean": _of_channels(picture.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        "std": _of_channels(picture.get("std") or open_clip.OPENAI_DATASET_STD),
        "interpolation": picture.get("interpolation") or "bicubic",
        "resize_mode": picture.get("resize_mode") or "shortest",
        "fill_color": int(picture.get("fill_color") or 0),
    }


def _sound_facts(name: str, model: Any) -> SoundFacts | None:
    if not hasattr(model, "audio"):
        return None
    from trivium.encoders.clip.sounds import facts_of_tower

    try:
        return facts_of_tower(model.audio)
    except ValueError as error:
        raise WeightsError(f"{name} cannot be used: {error}") from error


def _float32_bytes(module: Any) -> int:
    return 0 if module is None else 4 * sum(weight.numel() for weight in module.parameters())


def _of_channels(value: Any) -> tuple[float, float, float]:
    red, green, blue = value if isinstance(value, list | tuple) else (value,) * 3
    return (float(red), float(green), float(blue))
