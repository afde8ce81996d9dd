"""Damaged files of every format in the sandbox: each decodes or is refused once, in bounded time and memory.

`pytest -m slow -s tests/encoders/sandbox/test_corrupt_media.py` tries 1,000 mutants a format (or
TRIVIUM_MUTANTS) and prints a table.
"""

import io
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image, ImageDraw

from trivium.encoders import DecodeError, Modality
from trivium.encoders.sandbox.pool import DecodeSandbox

MAX_SECONDS = 10.0
MAX_BYTES = 1 << 30
QUICK, SLOW = 20, int(os.environ.get("TRIVIUM_MUTANTS", "1000"))

DRAWING = """<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30" viewBox="0 0 40 30">
<defs><linearGradient id="a"><stop offset="0" stop-color="red"/><stop offset="1" stop-color="#0f8"/></linearGradient>
<filter id="b"><feGaussianBlur stdDeviation="2"/></filter><clipPath id="c"><circle cx="20" cy="15" r="12"/></clipPath>
<path id="d" d="M2 2 L30 9 Q 20 30 8 20 Z"/></defs>
<rect width="100%" height="100%" fill="url(#a)" opacity="0.8"/>
<use href="#d" fill="blue" filter="url(#b)" transform="rotate(10)"/>
<g clip-path="url(#c)"><text x="3" y="20" font-size="9">text</text></g></svg>"""


def picture(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """A small picture that has both smooth parts and edges."""
    rows, columns = np.mgrid[0:40, 0:60]
    image = Image.fromarray(np.stack([rows * 6, columns * 4, rows * columns // 10], axis=2).astype(np.uint8))
    ImageDraw.Draw(image).ellipse((10, 5, 40, 35), fill="orange", outline="black")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode == "RGBA":
        image.putalpha(image.convert("L"))
    if kind == "HEIF":
        pytest.importorskip("pillow_heif", reason="it comes with the extra 'heif'").register_heif_opener()
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "green", "blue")]
    return picture_of(frames, kind)


def picture_of(frames: list[Image.Image], kind: str) -> bytes:
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=50)
    return buffer.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "described"
    return exif


def sound(kind: str, subtype: str, channels: int = 1, **options: Any) -> bytes:
    times = np.arange(6000)[:, np.newaxis]
    samples = np.sin(times * 0.05 * np.arange(1, channels + 1)) * 0.4
    samples += 0.1 * np.random.default_rng(0).standard_normal(samples.shape)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 24_000, format=kind, subtype=subtype, **options)
    return buffer.getvalue()


# The files that are damaged, in turn.
SEEDS: dict[str, tuple[Modality, Callable[[], list[bytes]]]] = {
    "bmp": ("image", lambda: [picture("BMP"), picture("BMP", "P"), picture("BMP", "1")]),
    "gif": ("image", lambda: [picture("GIF", "P"), picture("GIF", "P", interlace=1, transparency=3), animation("GIF")]),
    "jpeg": (
        "image",
        lambda: [
            picture("JPEG", exif=turned()),
            picture("JPEG", progressive=True, optimize=True),
            picture("JPEG", "CMYK"),
            picture("JPEG", "L", subsampling=0, restart_marker_blocks=2),
        ],
    ),
    "png": (
        "image",
        lambda: [
            picture("PNG", exif=turned()),
            picture("PNG", "RGBA"),
            picture("PNG", "P", transparency=3),
            picture("PNG", "I;16"),
            animation("PNG"),
        ],
    ),
    "tiff": (
        "image",
        lambda: [
            picture("TIFF", exif=turned()),
            picture("TIFF", "I;16"),
            picture("TIFF", "F"),
            *(picture("TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
            picture("TIFF", "1", compression="group4"),
        ],
    ),
    "webp": (
        "image",
        lambda: [
            picture("WEBP", exif=turned()),
            picture("WEBP", lossless=True),
            picture("WEBP", "RGBA"),
            animation("WEBP"),
        ],
    ),
    "avif": ("image", lambda: [picture("AVIF", exif=turned()), picture("AVIF", "RGBA"), animation("AVIF")]),
    "heic": ("image", lambda: [picture("HEIF", exif=turned().tobytes()), picture("HEIF", "RGBA"), animation("HEIF")]),
    "svg": ("image", lambda: [DRAWING.encode()]),
    "wav pcm": ("audio", lambda: [sound("WAV", "PCM_16", 2), sound("WAVEX", "PCM_24"), sound("RF64", "PCM_U8")]),
    "wav float": ("audio", lambda: [sound("WAV", "FLOAT"), sound("WAV", "DOUBLE", 2), sound("WAV", "ULAW")]),
    "flac": ("audio", lambda: [sound("FLAC", "PCM_16"), sound("FLAC", "PCM_24", 3)]),
    "vorbis": ("audio", lambda: [sound("OGG", "VORBIS"), sound("OGG", "VORBIS", 2)]),
    "opus": ("audio", lambda: [sound("OGG", "OPUS"), sound("OGG", "OPUS", 2)]),
    "mp3": (
        "audio",
        lambda: [
            sound("MP3", "MPEG_LAYER_III"),
            sound("MP3", "MPEG_LAYER_III", 2, bitrate_mode="CONSTANT", compression_level=0.5),
        ],
    ),
}


@dataclass
class Tally:
    """What became of a format's mutants."""

    decoded: int = 0
    refused: int = 0
    crashes: int = 0
    slowest: float = 0.0
    peak_bytes: int = 0


@pytest.mark.parametrize("kind", SEEDS)
def test_few_mutants(kind: str, reference: Callable[[str], ModuleType]) -> None:
    assert tally(kind, QUICK, reference("mutants")).crashes == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEEDS)
def test_many_mutants(kind: str, reference: Callable[[str], ModuleType]) -> None:
    found = tally(kind, SLOW, reference("mutants"))
    assert found.refused > 0
    assert found.decoded > 0
    if kind == next(iter(SEEDS)):
        print("\nformat      decoded  refused  crashes  slowest   peak memory")
    print(
        f"{kind:10} {found.decoded:8,} {found.refused:8,} {found.crashes:8,} {found.slowest:6.2f} s"
        f" {found.peak_bytes / 2**20:7,.0f} MiB"
    )


def tally(kind: str, count: int, mutators: ModuleType) -> Tally:
    modality, make = SEEDS[kind]
    found = Tally()
    with DecodeSandbox(1) as box:
        for seed in make():
            box.decode(modality, seed)  # each is sound; and the worker has started
        for mutant in itertools.islice(mutants_of(make(), mutators, count), count):
            started = time.perf_counter()
            reason = None
            try:
                decoded = box.decode(modality, mutant)
            except DecodeError as error:
                reason = error.reason
                found.refused += 1
            else:
                pixels = decoded[0] if isinstance(decoded, tuple) else decoded
                assert pixels.size > 0
                found.decoded += 1
            seconds = time.perf_counter() - started
            assert reason is None or reason.strip()
            crashed = reason is not None and reason.startswith("the decoder crashed")
            peak = max(map(peak_bytes, box.pids), default=0)
            found.crashes += crashed
            found.slowest = max(found.slowest, seconds)
            found.peak_bytes = max(found.peak_bytes, peak)
            if seconds > MAX_SECONDS or peak > MAX_BYTES or crashed:
                keep(kind, mutant, f"{seconds:.1f} s, {peak / 2**20:,.0f} MiB, crashed: {crashed}")
            assert seconds <= MAX_SECONDS
            assert peak <= MAX_BYTES
    assert found.decoded + found.refused == count
    return found


def mutants_of(seeds: list[bytes], mutators: ModuleType, count: int) -> Iterator[bytes]:
    """Mutants of each seed in turn."""
    streams = [mutators.each_mutant(data, number, count) for number, data in enumerate(seeds)]
    return itertools.chain.from_iterable(zip(*streams, strict=True))


def peak_bytes(pid: int) -> int:
    """The most memory that a process has held; 0 where there is no /proc."""
    path = Path(f"/proc/{pid}/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def keep(kind: str, mutant: bytes, what: str) -> None:
    """Write a mutant that broke something where TRIVIUM_KEEP_MUTANTS says, and tell."""
    print(f"\n{kind}, {len(mutant)} bytes: {what}")
    if folder := os.environ.get("TRIVIUM_KEEP_MUTANTS"):
        Path(folder, f"{kind} {hash(mutant):x}".replace("-", "")).write_bytes(mutant)
