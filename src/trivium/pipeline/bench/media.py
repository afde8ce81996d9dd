"""What `trivium bench` measures with: a sample of the user's own files, or files made up for it."""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from trivium.pipeline.escaping import printable
from trivium.pipeline.ingest.scanning import root_path, scan_media
from trivium.pipeline.records import ITEM_KINDS, ItemKind
from trivium.pipeline.space.joint import LABELS_SPACE, JointSpace, load_space
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.database_file import DATABASE
from trivium.pipeline.store.store import Store

# More are not read; a run that gets further begins again at the first.
MOST_FILES: Mapping[ItemKind, int] = {"text": 2048, "image": 512, "audio": 256, "video": 32}
MADE_TEXTS, MADE_PICTURES, MADE_SOUNDS = 256, 48, 24
MADE_SIZE, MADE_SECONDS, MADE_RATE_HZ = (640, 480), 5.0, 44_100

Files = Mapping[ItemKind, Sequence[str]]


def is_collection(path: str) -> bool:
    """Whether a folder is a collection."""
    return os.path.isfile(os.path.join(path, DATABASE))


def own_files(arguments: Sequence[str], *, scratch: Path) -> Files:
    """Choose files evenly from what collections hold and what lies in folders; nothing is written to either.

    Args:
        arguments: Collections, folders and files.
        scratch: A folder for the captions of collections, which count as texts.

    Raises:
        CollectionError: If there is no such path, or nothing in it that can be encoded.
    """
    found: dict[ItemKind, set[str]] = {kind: set() for kind in ITEM_KINDS}
    for argument in arguments:
        if not os.path.lexists(argument):
            raise CollectionError(f"no such file, folder or collection: {printable(argument)}")
        pairs = _of_collection(Path(argument), scratch) if is_collection(argument) else _of_media(argument)
        for kind, path in pairs:
            found[kind].add(path)
    chosen: dict[ItemKind, Sequence[str]] = {
        kind: evenly(sorted(paths), MOST_FILES[kind]) for kind, paths in found.items() if paths
    }
    if not chosen:
        raise CollectionError(f"no texts, pictures, sounds or videos in {', '.join(map(printable, arguments))}")
    return chosen


def made_files(space: JointSpace, *, scratch: Path) -> Files:
    """Make texts of label words, pictures of coloured clouds and sounds of tones in noise; the same each time."""
    random = np.random.default_rng(0)
    made: dict[ItemKind, Sequence[str]] = {}
    if "text" in space.modalities:
        made["text"] = _written(_texts(space), scratch, "made")
    if "image" in space.modalities:
        made["image"] = [_picture(scratch / f"{n}.jpg", random) for n in range(MADE_PICTURES)]
    if "audio" in space.modalities:
        made["audio"] = [_sound(scratch / f"{n}.wav", random) for n in range(MADE_SOUNDS)]
    return made


def evenly(paths: Sequence[str], most: int) -> Sequence[str]:
    """Choose at most so many, spread over all."""
    places: list[int] = np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int).tolist()
    return [paths[place] for place in places]


def _of_media(argument: str) -> Iterator[tuple[ItemKind, str]]:
    for file in scan_media([root_path(argument)]).files:
        yield file.modality, file.path
        if file.caption_path is not None:
            yield "text", file.caption_path


def _of_collection(folder: Path, scratch: Path) -> Iterator[tuple[ItemKind, str]]:
    captions: list[str] = []
    with closing(Store(folder)) as store:
        for item in store.items():
            yield item.modality, item.path
            if item.caption is not None and item.modality != "text":
                captions.append(item.caption)
    for path in _written(evenly(captions, MOST_FILES["text"]), scratch, f"caption-{abs(hash(folder))}"):
        yield "text", path


def _texts(space: JointSpace) -> Iterator[str]:
    """Yield texts of 1 to 12 words."""
    words = space.example_texts(MADE_TEXTS) or load_space(LABELS_SPACE).example_texts(MADE_TEXTS)
    for number in range(MADE_TEXTS):
        yield " ".join(itertools.islice(itertools.cycle(words), number, number + 1 + number % 12))


def _written(texts: Iterable[str], folder: Path, name: str) -> list[str]:
    paths = []
    for number, text in enumerate(texts):
        path = folder / f"{name}-{number}.txt"
        path.write_text(text, encoding="utf-8", errors="replace")
        paths.append(str(path))
    return paths


def _picture(path: Path, random: np.random.Generator) -> str:
    from PIL import Image

    clouds = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize(MADE_SIZE, Image.Resampling.BICUBIC)
    grain = random.normal(0, 6, (MADE_SIZE[1], MADE_SIZE[0], 3))
    pixels = np.clip(np.asarray(clouds) + grain, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=90)
    return str(path)


def _sound(path: Path, random: np.random.Generator) -> str:
    import soundfile

    times = np.arange(int(MADE_SECONDS * MADE_RATE_HZ)) / MADE_RATE_HZ
    tones = sum(np.sin(2 * np.pi * hz * times) for hz in random.uniform(80, 4000, 4))
    soundfile.write(path, 0.1 * tones + random.normal(0, 0.02, len(times)), MADE_RATE_HZ)
    return str(path)
