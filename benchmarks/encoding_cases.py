"""The rows of the encoding benchmark: what is encoded, by whom, and how much arithmetic an item takes at least."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from encoding_checkpoints import MODEL, RCLIP_MODEL, checkpoint, fastembed_folder, features_space, minilm_folder
from encoding_media import SOUND_KINDS, photos, sounds, texts
from encoding_process import MANY, Contestant, WorkerContender
from encoding_programs import CLIP_RETRIEVAL, RCLIP, ClipRetrieval, Rclip

from trivium.encoders.networks.weights import WEIGHTS, fetch

TEXT_PEERS = os.environ.get("TRIVIUM_TEXT_PEERS")

# Two operations for each multiplication that is added; counted by torch.utils.flop_counter for the first four.
VIT_B_32, VIT_B_32_256, LITE0, AISFX_BLOCK = 8.73, 11.34, 0.768, 3.86
HOP_SECONDS, BLOCK_SECONDS = 50 * 1024 / 44_100, 100 * 1024 / 44_100  # of aiSFX


class Contender(Protocol):
    """Who, and with what."""

    @property
    def name(self) -> str: ...

    @property
    def most_pairs(self) -> int:
        """How often it may be run at most, for it takes long."""
        ...

    def start(self, items: str, count: int, warm_up: str | None, scratch: Path) -> Contestant:
        """Make ready to encode: whatever is not to be timed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A row for each peer, ours first; then a row for each other way of ours, compared with our first."""

    name: str
    unit: str
    items: str  # folder, or JSON file of texts
    count: int
    ours: Contender
    peers: Sequence[Contender]
    others: Sequence[Contender] = ()
    gflop: float | None = None  # that the networks need for an item, nothing padded
    amount: float = 1.0  # of an item, as `rate` counts
    rate: str = "/s"
    warm_up: str | None = None  # items to warm up with, where the first few of the items would take long


def ours(name: str, space: str, modality: str, **options: Any) -> WorkerContender:
    return WorkerContender(name, "trivium", {"space": space, "modality": modality, **options})


def clip_photos(name: str, folder: Callable[[], Path], count: int) -> Case:
    space = f"open-clip:{MODEL}/{checkpoint()}"
    peers: list[Contender] = [
        WorkerContender("open_clip loop", "open_clip_images", {"checkpoint": checkpoint(), "model": MODEL})
    ]
    if CLIP_RETRIEVAL:
        peers.append(ClipRetrieval(checkpoint=checkpoint(), model=MODEL, modality="image"))
    return Case(
        name=name,
        unit="photos",
        items=str(folder()),
        count=count,
        ours=ours("trivium", space, "image"),
        peers=peers,
        others=[ours("trivium int8", space, "image", precision="int8")],
        gflop=VIT_B_32,
    )


def rclip_photos(name: str, folder: Callable[[], Path], count: int) -> Case:
    """Use the model that rclip is made for: photos of 256 x 256."""
    return Case(
        name=name,
        unit="photos",
        items=str(folder()),
        count=count,
        ours=ours("trivium", f"open-clip:{RCLIP_MODEL}/{checkpoint(RCLIP_MODEL)}", "image"),
        peers=[Rclip()] if RCLIP else [],
        gflop=VIT_B_32_256,
    )


def lite0_photos() -> Case:
    weights = str(fetch(WEIGHTS["efficientnet-lite0"]))
    return Case(
        name="lite0",
        unit="photos",
        items=str(photos(500, 375, 256)),
        count=256,
        ours=ours("trivium", features_space("efficientnet-lite0"), "image"),
        peers=[WorkerContender("timm + PIL loop", "timm_loop", {"weights": weights})],
        gflop=LITE0,
    )


def minilm_texts(kind: str, count: int) -> Case:
    from tokenizers import Tokenizer

    space, items = features_space("minilm-l6"), texts(kind, count)
    peers: list[Contender] = []
    if TEXT_PEERS:
        folder = minilm_folder()
        peers = [
            WorkerContender("sentence-transformers", "sentence_transformers", {"weights": folder}, TEXT_PEERS),
            WorkerContender("fastembed", "fastembed", {"weights": fastembed_folder()}, TEXT_PEERS),
            WorkerContender("infinity", "infinity", {"weights": folder}, TEXT_PEERS),
        ]
    tokenizer = Tokenizer.from_file(str(fetch(WEIGHTS["minilm-l6"]) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    tokens = [len(encoding.ids) for encoding in tokenizer.encode_batch(json.loads(items.read_text()))]
    return Case(
        name=f"texts-{kind}",
        unit=f"texts of {min(tokens)} to {max(tokens)} tokens, mean {sum(tokens) / count:.0f}",
        items=str(items),
        count=count,
        ours=ours("trivium", space, "text"),
        peers=peers,
        others=[ours("trivium int8", space, "text", precision="int8")],
        gflop=sum(transformer_gflop(length, layers=6, width=384) for length in tokens) / count,
    )


def clip_captions(count: int) -> Case:
    import open_clip

    space, items = f"open-clip:{MODEL}/{checkpoint()}", texts("short", count)
    peers: list[Contender] = [
        WorkerContender("open_clip loop", "open_clip_texts", {"checkpoint": checkpoint(), "model": MODEL})
    ]
    if CLIP_RETRIEVAL:
        peers.append(ClipRetrieval(checkpoint=checkpoint(), model=MODEL, modality="text"))
    # The end token has the highest number; what comes after it changes nothing.
    tokens = (open_clip.get_tokenizer(MODEL)(json.loads(items.read_text())).argmax(dim=1) + 1).tolist()
    return Case(
        name="captions",
        unit=f"captions of {min(tokens)} to {max(tokens)} tokens, mean {sum(tokens) / count:.0f}",
        items=str(items),
        count=count,
        ours=ours("trivium", space, "text"),
        peers=peers,
        others=[ours("trivium int8", space, "text", precision="int8")],
        gflop=sum(transformer_gflop(length, layers=12, width=512) for length in tokens) / count,
    )


def aisfx_sounds(name: str, kind: str, count: int, seconds: float) -> Case:
    weights = str(fetch(WEIGHTS["aisfx"]))
    return Case(
        name=name,
        unit=f"{kind} files of {seconds:.0f} s",
        items=str(sounds(kind, count, seconds)),
        count=count,
        ours=ours("trivium", features_space("aisfx"), "audio"),
        peers=[
            WorkerContender(
                "torchaudio loop", "torchaudio_loop", {"weights": weights}, most_pairs=3 if seconds > 60 else MANY
            )
        ],
        gflop=AISFX_BLOCK * (1 + (seconds - BLOCK_SECONDS) // HOP_SECONDS),
        amount=seconds,
        rate="s/s",
        warm_up=str(sounds("flac", 40, 5)),
    )


def transformer_gflop(tokens: int, *, layers: int, width: int) -> float:
    """Projections and the perceptron's two layers (12 width^2 weights a layer), and attention."""
    return 2 * layers * (12 * width**2 * tokens + 2 * tokens**2 * width) / 1e9


SMALL, LARGE = partial(photos, 500, 375, 256), partial(photos, 4000, 3000, 48)
CASES: dict[str, Callable[[], Case]] = {
    "photos500": partial(clip_photos, "photos500", SMALL, 128),
    "photos500-rclip": partial(rclip_photos, "photos500-rclip", SMALL, 128),
    "photos12mp": partial(clip_photos, "photos12mp", LARGE, 32),
    "photos12mp-rclip": partial(rclip_photos, "photos12mp-rclip", LARGE, 32),
    "lite0": lite0_photos,
    "texts-short": partial(minilm_texts, "short", 1000),
    "texts-mixed": partial(minilm_texts, "mixed", 300),
    "texts-long": partial(minilm_texts, "long", 150),
    "captions": partial(clip_captions, 256),
    **{f"sounds5s-{kind}": partial(aisfx_sounds, f"sounds5s-{kind}", kind, 40, 5) for kind in SOUND_KINDS},
    "sound20min": partial(aisfx_sounds, "sound20min", "flac", 1, 1200),
    "sound1h": partial(aisfx_sounds, "sound1h", "flac", 1, 3600),
}
WHEN_NAMED = {"sound1h"}  # takes as long as all other sounds together
