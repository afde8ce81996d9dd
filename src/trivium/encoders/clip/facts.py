"""What is known of an open_clip model without loading it; kept in the cache, so that a query need not load it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trivium.encoders.base import Modality, WeightsError
from trivium.encoders.clip.reference import FOLDER, HUB, PREFIX, ClipSource
from trivium.encoders.files.user_cache import cache_folder, read_sealed, write_sealed
from trivium.encoders.image.fit import Fit

REVISION = 2  # of what we do around the models: another one makes other vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundFacts:
    """How sounds become what an audio tower takes: log-mel frames of blocks of one length."""

    rate_hz: int
    block_samples: int
    fft_samples: int
    hop_samples: int
    mels: int
    min_hz: float
    max_hz: float
    is_slaney: bool  # else HTK's filters, not normalised: those of the models with fusion


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFacts:
    """A tokenizer of the Hub, kept in our cache as one file (`tokenizers`)."""

    sha256: str
    pad_id: int
    pads_left: bool = False
    clean: str = "whitespace"  # lower, whitespace or canonicalize
    stripped_id: int | None = None  # becomes 0: the end of a text, where a model was trained so


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFacts:
    """What is known of a model. Those of one without pictures have no sizes of them."""

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
    audio_bytes: int = 0
    tokenizer: TokenizerFacts | None = None  # None: CLIP's, or the one that open_clip finds by the model's name
    sound: SoundFacts | None = None

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the model has towers for."""
        return ("text", "image") if self.sound is None else ("text", "audio")

    @property
    def revision(self) -> str:
        """Changes with whatever moves a vector."""
        facts = asdict(self)
        del facts["pretrained"]  # a checkpoint may be moved
        for later in ("audio_bytes", "tokenizer", "sound"):  # so that what was made before they came stays valid
            if not facts[later]:
                del facts[later]
        return hashlib.sha256(json.dumps([REVISION, facts], sort_keys=True).encode()).hexdigest()[:12]

    @property
    def space_name(self) -> str:
        """Name the space, without the folder of a local checkpoint."""
        if self.name.startswith(HUB):
            return f"{PREFIX}{self.name}"
        if self.name == FOLDER:
            return f"{PREFIX}{FOLDER}{Path(self.pretrained).name}"
        return f"{PREFIX}{self.name}/{Path(self.pretrained).stem if '/' in self.pretrained else self.pretrained}"


def fit_of(facts: ClipFacts) -> Fit:
    """Return how a model's pictures become squares."""
    return Fit(
        side=facts.side,
        mode=facts.resize_mode,
        is_bilinear=facts.interpolation == "bilinear",
        fill=facts.fill_color,
    )


def facts_file(source: ClipSource) -> Path:
    """Where the facts of a model are kept."""
    key = hashlib.sha256(f"{REVISION}|{source.reference}|{source.state}".encode()).hexdigest()[:24]
    return cache_folder() / "open-clip" / f"{key}.json"


def kept_facts(source: ClipSource) -> ClipFacts | None:
    """Return what is known of a model, if it is, and neither that nor its tokenizer is damaged."""
    if (content := read_sealed(facts_file(source))) is None:
        return None
    try:
        known: dict[str, Any] = json.loads(content)
        for key, kind in (("tokenizer", TokenizerFacts), ("sound", SoundFacts)):
            if known.get(key) is not None:
                known[key] = kind(**known[key])
        facts = ClipFacts(**{**known, "mean": tuple(known["mean"]), "std": tuple(known["std"])})
    except (ValueError, TypeError, KeyError):
        return None
    return None if facts.tokenizer is not None and is_damaged(facts.tokenizer) else facts


def keep(facts: ClipFacts, source: ClipSource) -> None:
    """Write facts, whole or not at all.

    Raises:
        WeightsError: If they cannot be written.
    """
    target = facts_file(source)
    try:
        write_sealed(target, json.dumps(asdict(facts)).encode())
    except OSError as error:
        raise WeightsError(f"cannot keep {target.name} in {target.parent}: {error}") from error


def tokenizer_file(facts: TokenizerFacts) -> Path:
    """Where a tokenizer is kept."""
    return cache_folder() / "open-clip" / f"{facts.sha256[:24]}.tokenizer.json"


def is_damaged(facts: TokenizerFacts) -> bool:
    """Whether a tokenizer that is kept is missing, or not what it was."""
    try:
        return hashlib.sha256(tokenizer_file(facts).read_bytes()).hexdigest() != facts.sha256
    except OSError:
        return True
