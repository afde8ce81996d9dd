"""One contender of `encoding.py` in its own process: loads, warms up, then encodes everything each time it is told to.

    python encoding_worker.py CONTENDER '{"items": FOLDER_OR_JSON, "count": 100, "warm_up": null, "checkpoint": ...}'

Reads "go PATH" lines; answers with seconds by the clock, CPU seconds (of the children that have ended, too) and peak
memory (of this process alone), and saves its vectors as PATH. Peers import nothing of ours, but for the torchaudio
loop, which needs the network.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Encode = Callable[[Sequence[Any]], Any]  # items to unit vectors, (n, d)
BATCH = 32
WARM_UP = 8  # items


def trivium(space: str, modality: str, precision: str = "float32") -> Encode:
    from trivium.encoders.machine import keep_freed_memory
    from trivium.pipeline.space.joint import load_space

    keep_freed_memory()  # as `trivium index` does
    loaded = load_space(space, precision=precision)  # type: ignore[arg-type]
    return lambda items: loaded.encode(modality, items)  # type: ignore[call-overload]


def open_clip_images(checkpoint: str, model: str) -> Encode:
    import open_clip
    import torch
    from PIL import Image

    network, _, preprocess = open_clip.create_model_and_transforms(model)
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    network.eval()

    def encode(items: Sequence[Any]) -> Any:
        found = []
        with torch.inference_mode():
            for start in range(0, len(items), BATCH):
                batch = torch.stack([preprocess(Image.open(path)) for path in items[start : start + BATCH]])
                found.append(torch.nn.functional.normalize(network.encode_image(batch), dim=-1))
        return torch.cat(found).numpy()

    return encode


def open_clip_texts(checkpoint: str, model: str) -> Encode:
    import open_clip
    import torch

    network, _, _ = open_clip.create_model_and_transforms(model)
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    network.eval()
    tokenizer = open_clip.get_tokenizer(model)

    def encode(items: Sequence[Any]) -> Any:
        found = []
        with torch.inference_mode():
            for start in range(0, len(items), BATCH):
                tokens = tokenizer(items[start : start + BATCH])
                found.append(torch.nn.functional.normalize(network.encode_text(tokens), dim=-1))
        return torch.cat(found).numpy()

    return encode


def timm_loop(weights: str) -> Encode:
    """PIL and timm as most people use them; the features, not projected."""
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import load_file

    model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    model.load_state_dict(load_file(Path(weights) / "model.safetensors"))
    model.eval()

    def prepared(path: str) -> Any:
        with Image.open(path) as image:
            small = image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
        return (torch.from_numpy(np.array(small)).permute(2, 0, 1).float() - 127) / 128

    def encode(items: Sequence[Any]) -> Any:
        found = []
        with torch.inference_mode():
            for start in range(0, len(items), BATCH):
                batch = torch.stack([prepared(path) for path in items[start : start + BATCH]])
                found.append(model.forward_head(model.forward_features(batch), pre_logits=True))
        return torch.nn.functional.normalize(torch.cat(found), dim=-1).numpy()

    return encode


def torchaudio_loop(weights: str) -> Encode:
    """One file after the other: read, resample, mel, network; the embedding, not projected."""
    import soundfile
    import torch
    from torchaudio.functional import resample
    from torchaudio.transforms import MelSpectrogram

    from trivium.encoders.audio.aisfx import build_aisfx

    net = build_aisfx(Path(weights))
    mel = MelSpectrogram(44_100, n_fft=2048, hop_length=1024, n_mels=96, mel_scale="htk", pad_mode="constant")
    filters: Any = mel.get_buffer("mel_scale.fb")
    filters /= filters.sum(dim=0, keepdim=True).clamp(min=1e-12)

    def one(path: str) -> Any:
        waveform, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        sound = torch.from_numpy(waveform.mean(axis=1))
        if rate_hz != 44_100:
            sound = resample(sound, rate_hz, 44_100)
        sound = sound * (0.2 / sound.abs().max().clamp(min=1e-9))
        frames = torch.log10(1e4 * mel(sound).T + 1) / 9.457798957824707
        if len(frames) < 100:
            frames = torch.nn.functional.pad(frames, (0, 0, 0, 100 - len(frames)))
        blocks = frames.unfold(0, 100, 50).transpose(1, 2)
        parts = [net(blocks[start : start + BATCH])[0] for start in range(0, len(blocks), BATCH)]
        return torch.cat(parts).mean(dim=0)

    def encode(items: Sequence[Any]) -> Any:
        with torch.inference_mode():
            return torch.nn.functional.normalize(torch.stack([one(path) for path in items]), dim=-1).numpy()

    return encode


def sentence_transformers(weights: str) -> Encode:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(weights, device="cpu", local_files_only=True)  # mean pooling is its default
    return lambda items: model.encode(list(items), batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)


def fastembed(weights: str) -> Encode:
    """Run the same weights by ONNX Runtime in fastembed's own pipeline, with its own batch size."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="local/minilm", pooling=PoolingType.MEAN, normalization=True, sources=ModelSource(url="x"), dim=384,
        model_file="model.onnx",
    )  # fmt: skip
    model = TextEmbedding("local/minilm", specific_model_path=weights, threads=os.cpu_count())
    return lambda items: np.stack(list(model.embed(list(items))))


def infinity(weights: str) -> Encode:
    """Run infinity's engine in this process, without its server."""
    import asyncio

    from infinity_emb import AsyncEmbeddingEngine, EngineArgs

    settings = EngineArgs(
        model_name_or_path=weights, engine="torch", device="cpu", batch_size=BATCH, compile=False,
        bettertransformer=False, model_warmup=False,
    )  # fmt: skip
    engine = AsyncEmbeddingEngine.from_args(settings)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(engine.astart())

    def encode(items: Sequence[Any]) -> Any:
        vectors = np.stack(loop.run_until_complete(engine.embed(sentences=list(items)))[0])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return encode


CONTENDERS: dict[str, Callable[..., Encode]] = {
    function.__name__: function
    for function in (
        trivium,
        open_clip_images,
        open_clip_texts,
        timm_loop,
        torchaudio_loop,
        sentence_transformers,
        fastembed,
        infinity,
    )
}


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def peak_mib() -> float:
    """Most memory that this process has held; `getrusage` also counts what its parent held when it was forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def taken(source: str) -> list[str]:
    """Return the paths of a folder, or the texts of a JSON file."""
    path = Path(source)
    if path.is_dir():
        return sorted(map(str, path.iterdir()))
    texts: list[str] = json.loads(path.read_text())
    return texts


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    options = json.loads(sys.argv[2])
    items, warm_up = taken(options.pop("items"))[: options.pop("count")], options.pop("warm_up")
    encode = CONTENDERS[sys.argv[1]](**options)
    encode((items if warm_up is None else taken(warm_up))[:WARM_UP])
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        before, started = cpu_seconds(), time.perf_counter()
        vectors = encode(items)
        seconds, spent = time.perf_counter() - started, cpu_seconds() - before
        np.save(line.split(maxsplit=1)[1].strip(), np.asarray(vectors, np.float32), allow_pickle=False)
        print(
            json.dumps({"seconds": seconds, "cpu": spent, "peak_mib": peak_mib(), "items": len(vectors)}),
            file=answers,
            flush=True,
        )
    os._exit(0)  # infinity's threads would live on


if __name__ == "__main__":
    main()
