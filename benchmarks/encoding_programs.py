"""Peers that are programs, run whole each time: what of their time is the items'.

clip-retrieval tells in its own statistics how long reading, inference and writing took after its warm-up; of its CPU
seconds, those of a run over one item are taken off. rclip is run over all photos and over one, in turn, and the
difference counted, of both clocks. What remains of loading in it is noise.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np
from encoding_checkpoints import rclip_data
from encoding_process import MANY, THREADS, Run, Vectors, run_whole

CLIP_RETRIEVAL = os.environ.get("TRIVIUM_CLIP_RETRIEVAL")
RCLIP = os.environ.get("TRIVIUM_RCLIP")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRetrieval:
    """`clip-retrieval inference`; it writes half precision."""

    checkpoint: str
    model: str
    modality: Literal["image", "text"]
    name: str = "clip-retrieval"
    most_pairs: int = 3  # it takes half a minute to get ready

    def start(self, items: str, count: int, _warm_up: str | None, scratch: Path) -> "ClipRetrievalRuns":
        all_items, first = as_folders(items, count, scratch / "clip-retrieval")
        return ClipRetrievalRuns(self, all_items, first, scratch)


class ClipRetrievalRuns:
    """Its runs over a folder."""

    def __init__(self, settings: ClipRetrieval, items: Path, first: Path, scratch: Path) -> None:
        self.name = settings.name
        self.runs: list[Run] = []
        self._settings, self._items, self._out = settings, items, scratch / "out"
        self._loading = self._run(first)

    def go(self) -> None:
        run = self._run(self._items)
        stats = json.loads((self._out / "stats" / "0.json").read_text())
        self.runs.append(Run(stats["total_duration"], run.cpu - self._loading.cpu, run.peak_mib))

    @property
    def vectors(self) -> Vectors:
        short = "img" if self._settings.modality == "image" else "text"
        written = sorted((self._out / f"{short}_emb").glob("*.npy"))
        return np.concatenate([np.load(path, allow_pickle=False) for path in written]).astype(np.float32)

    def _run(self, items: Path) -> Run:
        shutil.rmtree(self._out, ignore_errors=True)
        settings = self._settings
        assert CLIP_RETRIEVAL is not None
        command = [CLIP_RETRIEVAL, "inference", "--input_dataset", str(items), "--output_folder", str(self._out)]
        command += ["--clip_model", f"open_clip:{settings.model}/{settings.checkpoint}", "--batch_size", "32"]
        command += ["--enable_text" if settings.modality == "image" else "--enable_image", "False"]
        command += ["--num_prepro_workers", THREADS]
        return run_whole(command, folder=items)[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._out, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Rclip:
    """rclip's indexing of a folder of photos."""

    name: str = "rclip"
    most_pairs: int = MANY

    def start(self, items: str, count: int, _warm_up: str | None, scratch: Path) -> "RclipRuns":
        return RclipRuns(*as_folders(items, count, scratch / "rclip"))


@dataclass
class RclipRuns:
    """Its runs over a folder."""

    photos: Path
    one: Path
    name: str = "rclip"
    runs: list[Run] = field(default_factory=list)

    def go(self) -> None:
        loading, whole = rclip_index(self.one), rclip_index(self.photos)
        self.runs.append(Run(whole.seconds - loading.seconds, whole.cpu - loading.cpu, whole.peak_mib))

    @property
    def vectors(self) -> Vectors:
        database = sqlite3.connect(Path(rclip_data()) / "db.sqlite3")
        try:
            rows = database.execute("SELECT vector FROM images WHERE deleted IS NULL ORDER BY filepath").fetchall()
        finally:
            database.close()
        return np.frombuffer(b"".join(row[0] for row in rows), np.float32).reshape(len(rows), -1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def rclip_index(photos: Path) -> Run:
    """Index a folder anew, and answer one query, without which it does not run."""
    for left in Path(rclip_data()).glob("db.sqlite3*"):
        left.unlink()
    return run_whole(_rclip("a fish"), folder=photos, variables={"RCLIP_DATADIR": rclip_data()})[0]


def rclip_query(photos: Path, text: str) -> tuple[Run, list[str]]:
    """Answer a query over what is indexed; return what the process took, and the names of the photos."""
    command = _rclip(text, "--no-indexing")
    run, printed = run_whole(command, folder=photos, variables={"RCLIP_DATADIR": rclip_data()})
    return run, [Path(line).name for line in printed.splitlines()]


def _rclip(text: str, *options: str) -> Sequence[str]:
    assert RCLIP is not None
    return [RCLIP, *options, "--filepath-only", "--top", "3", text]


def as_folders(items: str, count: int, scratch: Path) -> tuple[Path, Path]:
    """Make a folder of the first items, photos or a JSON file's texts, and one of the first alone."""
    several, one = scratch / "items", scratch / "first"
    for folder, number in ((several, count), (one, 1)):
        folder.mkdir(parents=True)
        if Path(items).is_dir():
            for path in sorted(Path(items).iterdir())[:number]:
                (folder / path.name).hardlink_to(path) if _same_device(path, folder) else shutil.copy(path, folder)
        else:
            for index, text in enumerate(json.loads(Path(items).read_text())[:number]):
                (folder / f"{index:06}.txt").write_text(text)
    return several, one


def _same_device(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev
