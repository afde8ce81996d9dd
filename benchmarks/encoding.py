"""Files and texts to vectors on a CPU: ours against the peers on the same weights, files and threads, A B A B.

    python benchmarks/encoding.py [CASE ...] [--pairs 5]

Each contender is a process that has loaded its model and warmed up; every row has its accuracy beside its speed. Peers
that need an environment of their own are named by TRIVIUM_TEXT_PEERS (a Python that has sentence-transformers and
fastembed), TRIVIUM_CLIP_RETRIEVAL and TRIVIUM_RCLIP (the programs), and left out without; how they were made:
docs/benchmarks.md, "Encoding".
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from encoding_media import FOLDER, SOUND_KINDS, photos, sounds, texts
from encoding_programs import CLIP_RETRIEVAL, RCLIP, RCLIP_MODEL, clip_retrieval, rclip, rclip_checkpoint
from index_process import spread
from machine import describe

from trivium.encoders.registry import BACKBONES
from trivium.encoders.weights import WEIGHTS, fetch

WORKER = Path(__file__).with_name("encoding_worker.py")
TEXT_PEERS = os.environ.get("TRIVIUM_TEXT_PEERS")
MODEL = "ViT-B-32"
POOLED = "trivium-features"  # a space of the backbones' own vectors, so that they compare with the peers'


@dataclass(frozen=True, slots=True)
class Contender:
    """Who, and with what."""

    name: str
    function: str
    options: dict[str, Any]
    python: str = sys.executable


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table, or several: the first contender is ours."""

    name: str
    unit: str
    ours: Contender
    peers: Sequence[Contender]
    items: str  # folder, or JSON file of texts
    count: int
    others: Sequence[Contender] = field(default=())  # of ours too: compared with our first


def checkpoint() -> str:
    """Random weights by seed: the same file for all."""
    path = FOLDER / "vitb32.pt"
    if not path.exists():
        import open_clip
        import torch

        torch.manual_seed(0)
        torch.save(open_clip.create_model(MODEL).state_dict(), path)
    return str(path)


def features_space(backbone: str) -> str:
    """Make a space of a backbone's pooled features."""
    spec = BACKBONES[backbone]
    folder = FOLDER / f"space-{backbone}"
    folder.mkdir(parents=True, exist_ok=True)
    encoders = {spec.modality: {"backbone": backbone, "projection": {"kind": "identity"}}}
    (folder / "space.json").write_text(json.dumps({"format": 1, "name": POOLED, "dim": spec.dim, "encoders": encoders}))
    return str(folder)


def ours(name: str, space: str, modality: str, **options: Any) -> Contender:
    return Contender(name, "trivium", {"space": space, "modality": modality, **options})


def cases() -> list[Case]:
    clip = f"open-clip:{MODEL}/{checkpoint()}"
    minilm, lite0, aisfx = (str(fetch(WEIGHTS[name])) for name in ("minilm-l6", "efficientnet-lite0", "aisfx"))
    text_space, sound_space = features_space("minilm-l6"), features_space("aisfx")
    images = Contender("open_clip loop", "open_clip_images", {"checkpoint": checkpoint(), "model": MODEL})
    clip_photos = (ours("trivium", clip, "image"), [images], [ours("trivium int8", clip, "image", precision="int8")])
    small, large = str(photos(500, 375, 256)), str(photos(4000, 3000, 48))
    found = [
        Case("photos500", "photos", *clip_photos[:2], small, 96, clip_photos[2]),
        Case("photos12mp", "photos", *clip_photos[:2], large, 48, clip_photos[2]),
        Case(
            "lite0",
            "photos",
            ours("trivium", features_space("efficientnet-lite0"), "image"),
            [Contender("timm + PIL loop", "timm_loop", {"weights": lite0})],
            small,
            256,
        ),
    ]
    text_peers = []
    if TEXT_PEERS:
        text_peers = [Contender("sentence-transformers", "sentence_transformers", {"weights": minilm}, TEXT_PEERS)]
        if (onnx := _fastembed_folder(minilm)) is not None:
            text_peers.append(Contender("fastembed", "fastembed", {"weights": onnx, "onnx": "model.onnx"}, TEXT_PEERS))
    for kind, count in (("short", 2000), ("mixed", 400), ("long", 300)):
        int8 = ours("trivium int8", text_space, "text", precision="int8")
        case = Case(
            f"texts-{kind}",
            "texts",
            ours("trivium", text_space, "text"),
            text_peers,
            str(texts(kind, count)),
            count,
            [int8],
        )
        found.append(case)
    captions = Contender("open_clip loop", "open_clip_texts", {"checkpoint": checkpoint(), "model": MODEL})
    found.append(
        Case(
            "captions",
            "texts",
            ours("trivium", clip, "text"),
            [captions],
            str(texts("short", 2000)),
            500,
            [ours("trivium int8", clip, "text", precision="int8")],
        )
    )
    loop = Contender("torchaudio loop", "torchaudio_loop", {"weights": aisfx})
    sound = ours("trivium", sound_space, "audio")
    found += [Case(f"sounds5s-{kind}", "files", sound, [loop], str(sounds(kind, 40, 5)), 40) for kind in SOUND_KINDS]
    found.append(Case("sound20min", "files", sound, [loop], str(sounds("flac", 1, 1200)), 1))
    return found


def _fastembed_folder(weights: str) -> str | None:
    """Put MiniLM's tokenizer beside a graph with the inputs that fastembed gives."""
    folder = FOLDER / "fastembed"
    if not (folder / "model.onnx").exists():
        import shutil

        import torch
        from transformers import BertModel

        from trivium.encoders.minilm import build_minilm

        folder.mkdir(parents=True, exist_ok=True)
        bert = build_minilm(Path(weights)).get_submodule("bert")
        assert isinstance(bert, BertModel)

        class Hidden(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.bert = bert

            def forward(self, ids: Any, mask: Any, types: Any) -> Any:
                return self.bert(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

        example = torch.ones((2, 5), dtype=torch.int64)
        names = ["input_ids", "attention_mask", "token_type_ids"]
        torch.onnx.export(
            Hidden(),
            (example, example, example * 0),
            str(folder / "model.onnx"),
            dynamo=False,
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "n", 1: "t"} for name in [*names, "last_hidden_state"]},
            opset_version=17,
        )
        for name in ("tokenizer.json", "config.json"):
            shutil.copy(Path(weights) / name, folder / name)
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 256, "pad_token": "[PAD]"}))
        (folder / "special_tokens_map.json").write_text(
            json.dumps({"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"})
        )
    return str(folder)


class Process:
    """A contender that is ready."""

    def __init__(self, contender: Contender, case: Case, scratch: Path) -> None:
        options = {**contender.options, "items": case.items, "count": case.count}
        threads = str(os.cpu_count())
        limits = {name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        environment = {**os.environ, **limits, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
        log = (FOLDER / "workers.log").open("a")
        self._process = subprocess.Popen(
            [contender.python, str(WORKER), contender.function, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )
        self.name = contender.name
        self.vectors_file = scratch / f"{contender.name}.npy"
        self.runs: list[dict[str, float]] = []
        self._answer()

    def go(self) -> None:
        assert self._process.stdin is not None
        print(f"go {self.vectors_file}", file=self._process.stdin, flush=True)
        self.runs.append(json.loads(self._answer()))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self._process.wait()}: see {FOLDER / 'workers.log'}")
        return line

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    @property
    def vectors(self) -> np.ndarray:
        return np.asarray(np.load(self.vectors_file, allow_pickle=False), np.float32)


def compare(case: Case, pairs: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for other, is_peer in [*((peer, True) for peer in case.peers), *((other, False) for other in case.others)]:
            try:
                # The float32 engine of ours comes first in a pair with a peer, second in one with our own int8.
                first, second = (case.ours, other) if is_peer else (other, case.ours)
                processes = [Process(contender, case, Path(scratch)) for contender in (first, second)]
            except RuntimeError as error:
                print(f"| {case.name} | {other.name} | {error} |", flush=True)
                continue
            for _ in range(pairs):
                for process in processes:
                    process.go()
            for process in processes:
                process.close()
            a, b = processes
            wall = [y["seconds"] / x["seconds"] for x, y in zip(a.runs, b.runs, strict=True)]
            cpu = [y["cpu"] / x["cpu"] for x, y in zip(a.runs, b.runs, strict=True)]
            rates = [case.count / statistics.median(run["seconds"] for run in p.runs) for p in processes]
            print(
                f"| {case.name} | {case.count} {case.unit} | {a.name} {rates[0]:.1f}/s | {b.name} {rates[1]:.1f}/s | "
                f"{spread(wall)} | {spread(cpu)} | {accuracy(a.vectors, b.vectors)} | "
                f"{a.runs[-1]['peak_mib']:.0f} / {b.runs[-1]['peak_mib']:.0f} |",
                flush=True,
            )


def compare_programs(options: argparse.Namespace) -> None:
    """Compare with programs that are run whole: fewer pairs, they take a minute each."""
    pairs = min(options.pairs, 3)
    for name, folder, count in (("photos500", photos(500, 375, 256), 96), ("photos12mp", photos(4000, 3000, 48), 48)):
        if options.cases and not any(name.startswith(case) for case in options.cases):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            few = Path(scratch) / "photos"
            few.mkdir()
            for number, path in enumerate(sorted(folder.iterdir())[:count]):
                (few / path.name).symlink_to(path)
                if not number:
                    one = Path(scratch) / "one"
                    one.mkdir()
                    (one / path.name).symlink_to(path)
            if CLIP_RETRIEVAL:
                ours_ = ours("trivium", f"open-clip:{MODEL}/{checkpoint()}", "image")
                process = Process(ours_, Case(name, "photos", ours_, [], str(few), count), Path(scratch))
                seconds = []
                for _ in range(pairs):
                    process.go()
                    spent, vectors = clip_retrieval(few, checkpoint(), MODEL)
                    seconds.append(spent)
                _print_program(name, count, process, "clip-retrieval", seconds, accuracy(process.vectors, vectors))
            if RCLIP:
                ours_ = ours("trivium, 256 px", f"open-clip:{RCLIP_MODEL}/{rclip_checkpoint()}", "image")
                process = Process(ours_, Case(name, "photos", ours_, [], str(few), count), Path(scratch))
                seconds = []
                for _ in range(pairs):
                    process.go()
                    seconds.append(rclip(few) - rclip(one))
                _print_program(name, count, process, "rclip", seconds, "vectors are in its database")


def _print_program(
    case: str, count: int, process: Process, peer: str, seconds: Sequence[float], accuracy_told: str
) -> None:
    process.close()
    wall = [theirs / run["seconds"] for theirs, run in zip(seconds, process.runs, strict=True)]
    rate = count / statistics.median(run["seconds"] for run in process.runs)
    print(
        f"| {case} | {count} photos | {process.name} {rate:.1f}/s | "
        f"{peer} {count / statistics.median(seconds):.1f}/s | "
        f"{spread(wall)} | not told | {accuracy_told} | {process.runs[-1]['peak_mib']:.0f} / not told |",
        flush=True,
    )


def accuracy(found: np.ndarray, expected: np.ndarray) -> str:
    """Cosine of each vector to the other contender's, and how many of the ten nearest stay."""
    cosines = (found * expected).sum(axis=1)
    told = f"cos {cosines.mean():.5f}, least {cosines.min():.4f}"
    if len(found) > 50:
        nearest = [np.argsort(-(v @ v.T - 2 * np.eye(len(v))), axis=1)[:, :10] for v in (found, expected)]
        kept = np.mean([len(set(x) & set(y)) / 10 for x, y in zip(*(n.tolist() for n in nearest), strict=True)])
        told += f", top 10 kept {kept:.1%}"
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help="all if none is named")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    print(describe(), "\n")
    print("| case | size | A | B | A faster, by the clock | by CPU seconds | A's vectors to B's | peak MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for case in cases():
        if not options.cases or any(case.name.startswith(name) for name in options.cases):
            compare(case, options.pairs)
    compare_programs(options)


if __name__ == "__main__":
    main()
