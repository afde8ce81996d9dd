"""`trivium bench`: how fast this machine encodes the user's own media, what limits it, and how far the floor is."""

import argparse
import contextlib
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from trivium.encoders.base import DecodeError, Modality
from trivium.encoders.devices import resolve
from trivium.encoders.machine import keep_freed_memory
from trivium.encoders.networks.contract import device_kind
from trivium.pipeline.bench.media import is_collection, made_files, own_files
from trivium.pipeline.bench.stages import FLOOR_SHARE, NothingReadyError, compare, measure
from trivium.pipeline.cli.bench_report import Report, as_json, print_report
from trivium.pipeline.cli.options import device_of
from trivium.pipeline.cli.terminal import announce, say
from trivium.pipeline.records import ItemKind, Part, modality_of
from trivium.pipeline.space.joint import DEFAULT_SPACE, JointSpace, load_space
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.store import Store

GEMM_SIDE = {"cpu": 1024, "gpu": 8192}
GEMM_RUNS = 15


def bench(options: argparse.Namespace) -> int:
    """Measure, and tell."""
    device = device_of(options)
    keep_freed_memory()  # as indexing does
    with tempfile.TemporaryDirectory(prefix="trivium-bench-") as scratch:
        space = load_space(
            _space_of(options),
            device=device,
            precision=options.precision,
            announce=announce,
            is_named=options.space is not None,  # else a collection, which may be anybody's, names it
        )
        try:
            report = run(space, options.media, scratch=Path(scratch), options=options)
        except DecodeError as error:
            raise CollectionError(f"a file changed while it was measured: {error.reason}") from error
    if options.json:
        say(json.dumps(as_json(report)))
    else:
        print_report(report)
    return 0


def run(space: JointSpace, media: list[str], *, scratch: Path, options: argparse.Namespace) -> Report:
    """Measure each kind of file that the media have and the space has an encoder for.

    Raises:
        CollectionError: If there is nothing that can be encoded.
    """
    started, load = time.perf_counter(), os.getloadavg()[0]
    files = own_files(media, scratch=scratch) if media else made_files(space, scratch=scratch)
    devices = list(resolve(options.device))
    report = Report(
        space=str(space.space),
        devices=devices,
        precision=options.precision,
        is_made=not media,
        gemm_gflops=gemm_gflops(devices[0]),
        load=load,
    )
    kinds: list[ItemKind] = [kind for kind in files if modality_of(kind, Part("content")) in space.modalities]
    share = options.seconds / max(len(kinds), 1)
    for kind in kinds:
        encoded: tuple[Modality, ...] = ("image", "audio") if kind == "video" else (kind,)
        for modality in encoded:
            if modality in space.modalities:
                space.encoder(modality)  # loading it is not measured
        announce(f"measuring {kind} ({share:.0f} s)")
        try:
            report.measured[kind] = measure(space, kind, files[kind], seconds=share)
        except NothingReadyError as error:
            announce(f"no {kind} can be measured: {error}")
    if not report.measured:
        raise CollectionError(f"nothing that space {space.space} can encode")
    report.peak_mib = _peak_mib()
    if options.precision != "float32" and device_kind(devices[0]) == "cpu":  # other devices know no such choice
        plain = load_space(space.source, device="cpu", announce=announce, is_named=options.space is not None)
        for kind, measured in report.measured.items():
            if kind == "video" and "image" in report.measured:  # by the same network
                continue
            modality = modality_of(kind, Part("content"))
            ours, theirs = space.encoder(modality), plain.encoder(modality)
            report.accuracy[kind] = compare(ours, theirs, measured.ready, seconds=FLOOR_SHARE * share)
    report.seconds = time.perf_counter() - started
    return report


def gemm_gflops(device: str) -> float:
    """Median speed of a product of two square matrices: float32 on a CPU, half precision on anything else."""
    if device_kind(device) == "cpu":
        side = GEMM_SIDE["cpu"]
        matrix = np.ones((side, side), np.float32)
        spent = [_timed(lambda: matrix @ matrix) for _ in range(GEMM_RUNS)]
    else:
        import torch

        side = GEMM_SIDE["gpu"]
        ones = torch.ones((side, side), device=device, dtype=torch.float16)
        spent = [_timed(lambda: (ones @ ones)[0, 0].item()) for _ in range(GEMM_RUNS)]
    return 2 * side**3 / statistics.median(spent) / 1e9


def _space_of(options: argparse.Namespace) -> str:
    """Name the space that was asked for, else that of the first collection."""
    if options.space is not None:
        return str(options.space)
    for path in filter(is_collection, options.media):
        with contextlib.closing(Store(Path(path))) as store:
            return store.space_source
    return DEFAULT_SPACE


def _peak_mib() -> float:
    """Return the most memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
