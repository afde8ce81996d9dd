"""`trivium bench`: how fast this machine encodes the user's own media, what limits it, and how far the floor is."""

import argparse
import contextlib
import json
import math
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trivium.encoders.base import DecodeError, Modality
from trivium.encoders.devices import resolve
from trivium.encoders.engine import StageStats
from trivium.encoders.machine import keep_freed_memory, usable_cores
from trivium.encoders.networks.contract import Precision, device_kind
from trivium.pipeline.bench.media import is_collection, made_files, own_files
from trivium.pipeline.bench.stages import FLOOR_SHARE, Accuracy, Measured, NothingReadyError, compare, measure
from trivium.pipeline.cli.ends import Command
from trivium.pipeline.cli.options import add_device, add_json, device_of, seconds
from trivium.pipeline.cli.terminal import ShownTable, announce, say, say_table
from trivium.pipeline.escaping import printable
from trivium.pipeline.records import ItemKind, Part, modality_of
from trivium.pipeline.space.joint import DEFAULT_SPACE, JointSpace, load_space
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.store import Store

GEMM_SIDE = {"cpu": 1024, "gpu": 8192}
GEMM_RUNS = 15
STAGES = ("read", "decode", "prepare", "encode")
SIZES: Mapping[ItemKind, str] = {
    "text": "characters",
    "image": "megapixels",
    "audio": "seconds",
    "video": "megabytes",
}
REASONS_SHOWN = 3  # why files were left out; --json has all
LOW_SHARE = 0.8  # of the floor: below it the reason is told
MADE = "the media were made up (label words, coloured clouds, tones in noise): your own take longer to decode, or less"


@dataclass(slots=True)
class Report:
    """All that a run found."""

    space: str
    devices: list[str]
    precision: Precision
    is_made: bool  # whether the media are
    gemm_gflops: float
    load: float  # programs that wanted to run in the minute before, ours not among them
    peak_mib: float = 0.0
    seconds: float = 0.0
    measured: dict[ItemKind, Measured] = field(default_factory=dict)
    accuracy: dict[ItemKind, Accuracy | None] = field(default_factory=dict)  # None: as float32


def bench_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium bench`."""
    parser.description = "Nothing is written to any collection. Without MEDIA it makes some up."
    parser.add_argument("media", metavar="MEDIA", nargs="*", help="collections, files and folders")
    parser.add_argument("--space", help="a space's name or folder (default: that of the first collection)")
    parser.add_argument("--seconds", type=seconds, default=60.0, help="how long it may take, about (default 60)")
    add_json(parser)
    add_device(parser)


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


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as one JSON object."""
    return {
        "space": report.space,
        "devices": report.devices,
        "precision": report.precision,
        "machine": machine(),
        "cores": usable_cores(),
        "load": round(report.load, 2),
        "gemm_gflops": round(report.gemm_gflops, 1),
        "media": "made" if report.is_made else "own",
        "modalities": {modality: _measured_json(measured) for modality, measured in report.measured.items()},
        "accuracy": {modality: _accuracy_json(accuracy) for modality, accuracy in report.accuracy.items()},
        "peak_mib": round(report.peak_mib),
        "seconds": round(report.seconds, 1),
    }


def print_report(report: Report) -> None:
    """Print a report for people."""
    say(f"{machine()}, {usable_cores()} cores, {report.gemm_gflops:,.0f} GFLOP/s in a matrix product")
    say(f"space {printable(report.space)} on {', '.join(report.devices)}, {report.precision}")
    tables = {
        "All stages together, and the network alone on inputs that are ready": _speeds(report),
        "How busy each stage was, its share of all cores, and what it could do at 100 %": _stages(report),
    }
    if any(report.accuracy.values()):
        tables[f"What {report.precision} costs and brings, beside float32"] = _accuracies(report)
    for title, table in tables.items():
        say_table(table, title=title)
    say()
    say(*_notes(report))


def machine() -> str:
    """Name the processor, the system and the Python."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass  # elsewhere than on Linux
    return f"{model}, {platform.system()}, Python {platform.python_version()}"


def _speeds(report: Report) -> ShownTable:
    table = _table("", "files/s", "alone", "share", "limited by", "one by one", "best batch")
    for kind, measured in report.measured.items():
        by_batch = measured.floor_by_batch
        best = measured.best_batch
        table.add_row(
            kind,
            _number(measured.rate),
            f"{_number(measured.floor)}/s",
            f"{measured.share_of_floor:.0%}",
            _limit(measured) or "",
            f"{_number(by_batch[min(by_batch)])}/s",
            f"{_number(by_batch[best])}/s in {best:,}",
        )
    return table


def _stages(report: Report) -> ShownTable:
    table = _table("", "stage", "workers", "busy", "cpu", "could do")
    for kind, measured in report.measured.items():
        for row in _stages_json(measured):
            shares = ("" if row[share] is None else f"{row[share]:.0%}" for share in ("busy_share", "processor_share"))
            could = row["could_do_per_second"]
            could_do = "" if could is None else f"{_number(could)}/s"
            table.add_row(kind, row["name"], str(row["workers"]), *shares, could_do)
    return table


def _accuracies(report: Report) -> ShownTable:
    table = _table("", "mean cosine", "least", "10 nearest kept", "speed")
    for kind, accuracy in report.accuracy.items():
        if accuracy is not None:
            kept = "too few" if math.isnan(accuracy.neighbours_kept) else f"{accuracy.neighbours_kept:.1%}"
            cosines = (f"{cosine:.5f}" for cosine in (accuracy.mean_cosine, accuracy.least_cosine))
            table.add_row(kind, *cosines, f"{kept} of {accuracy.among:,}", f"{accuracy.speed:.2f}x")
    return table


def _table(*names: str) -> ShownTable:
    left = ("", "stage", "limited by")
    return ShownTable({name: {"justify": "left" if name in left else "right", "no_wrap": True} for name in names})


def _notes(report: Report) -> list[str]:
    decoders = [measured.decoder_mib for measured in report.measured.values() if measured.decoder_mib is not None]
    beside = f", and {max(decoders):,.0f} in each process that decodes" if decoders else ""
    notes = [f"peak memory {report.peak_mib:,.0f} MiB{beside}"]
    for kind, measured in report.measured.items():
        files, each = len(measured.ready.files), f"{_number(measured.ready.mean_size)} {SIZES[kind]}"
        notes.append(f"{kind}: a sample of {files:,} files of {each}; {measured.files_done:,} files encoded in all")
        notes += [f"{kind}: {note}" for note in _left_out(measured.ready.left_out)]
    if "video" in report.measured:
        notes.append("video: alone and share are of the pictures' network, files/s of all, their sound too")
    low = [kind for kind, measured in report.measured.items() if measured.share_of_floor < LOW_SHARE]
    shared = [kind for kind in low if kind != "video"]  # of which sounds take a part
    if shared and report.devices[0].startswith("cpu"):
        notes.append(f"{' and '.join(shared)}: the rest of the cores' time went to decoding, or to other programs")
    if same := [kind for kind, accuracy in report.accuracy.items() if accuracy is None]:
        notes.append(f"{' and '.join(same)}: the vectors are those of float32, this network has no {report.precision}")
    if report.load > usable_cores() / 4:
        notes.append(f"other programs were at work (load {report.load:.1f}): without them it is faster")
    if report.is_made:
        notes.append(MADE)
    return notes


def _left_out(reasons: Mapping[str, str]) -> list[str]:
    """Say how many files were left out for each reason, the most frequent first."""
    counts = Counter(reasons.values()).most_common()
    firsts = {reason: path for path, reason in reversed(list(reasons.items()))}
    notes = [
        f"{count:,} files left out, the first {printable(firsts[reason])}: {printable(reason)}"
        for reason, count in counts[:REASONS_SHOWN]
    ]
    if rest := sum(count for _, count in counts[REASONS_SHOWN:]):
        notes.append(f"{rest:,} files left out for other reasons (--json has all)")
    return notes


def _measured_json(measured: Measured) -> dict[str, Any]:
    kind, ready = measured.kind, measured.ready
    return {
        "files": len(ready.files),
        "files_done": measured.files_done,
        "left_out": dict(ready.left_out),
        f"mean_{SIZES[kind]}": round(ready.mean_size, 4),
        "vectors_per_file": round(measured.vectors_done / measured.files_done, 3),
        "files_per_second": round(measured.rate, 2),
        "floor_files_per_second": round(measured.floor, 2),
        "share_of_floor": round(measured.share_of_floor, 4),
        "floor_vectors_per_second_by_batch": {size: round(rate, 2) for size, rate in measured.floor_by_batch.items()},
        "stages": _stages_json(measured),
        "limited_by": _limit(measured),
        "decoding_process_peak_mib": None if measured.decoder_mib is None else round(measured.decoder_mib),
    }


def _stages_json(measured: Measured) -> list[dict[str, Any]]:
    stages = []
    seconds, processor = measured.stats.seconds, measured.stats.processor_shares()
    for stage in sorted(measured.stats.stages, key=_place):
        share = stage.busy_share(seconds)
        stages.append(
            {
                "name": stage.name,
                "workers": stage.workers,
                "items_per_second": round(stage.items / seconds, 2),
                "busy_share": round(share, 4),
                "processor_share": round(processor[stage.name], 4) if stage.name in processor else None,
                "could_do_per_second": round(stage.items / seconds / share, 2) if share else None,
            }
        )
    return stages


def _limit(measured: Measured) -> str | None:
    """Name what limits the whole way: the processor if all of it is used, else the busiest stage."""
    if measured.stats.fills_processor():
        return "processor"
    limiting = measured.stats.limiting()
    return None if limiting is None else limiting.name


def _place(stage: StageStats) -> int:
    """Return where a stage stands on the way; one that is not known comes last."""
    return STAGES.index(stage.name) if stage.name in STAGES else len(STAGES)


def _accuracy_json(accuracy: Accuracy | None) -> dict[str, Any] | None:
    if accuracy is None:
        return None
    return {
        "mean_cosine": round(accuracy.mean_cosine, 6),
        "least_cosine": round(accuracy.least_cosine, 6),
        "neighbours_kept": None if math.isnan(accuracy.neighbours_kept) else round(accuracy.neighbours_kept, 4),
        "among": accuracy.among,
        "speed_to_float32": round(accuracy.speed, 3),
    }


def _number(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


COMMANDS: Mapping[str, Command] = {"bench": Command(bench_options, bench)}
