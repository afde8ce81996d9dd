"""Encoding on a GPU against the peers: one command, under ten minutes, also where faiss and open_clip are missing.

    python benchmarks/gpu.py --prepare .gpu-bench      here: photos, captions and sounds of TRIVIUM_DATA, 40 MB
    python benchmarks/gpu.py [CASE ...] [--material .gpu-bench]      there
    python benchmarks/gpu.py --quick --device cpu-torch      tries the script itself on a CPU; its figures mean nothing

All networks have random weights by seed, which cost the same time as trained ones; the accuracy beside each speed is
the cosine to the same network in float32. A machine with torch, torchvision, torchaudio, timm, transformers, tokenizers
and Pillow lacks these wheels, which the script names again where they are missing: see `WHEELS`.
"""

import argparse
import dataclasses
import importlib.util
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WHEELS = {
    "platformdirs": "platformdirs",
    "soundfile": "soundfile cffi pycparser",
    "filelock": "filelock",
    "safetensors": "safetensors",
    "open_clip": "open-clip-torch ftfy wcwidth",
    "sentence_transformers": "sentence-transformers",
}
OPTIONAL = ("open_clip", "sentence_transformers")  # timm's ViT-B/32 and transformers stand in
MODES = ("eager", "graphs", "compile")
PAIRS = 3
Encode = Callable[[], Any]  # gives vectors, (n, d)


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """What was asked for."""

    device: str
    is_quick: bool
    material: Path

    def count(self, full: int, quick: int) -> int:
        return quick if self.is_quick else full

    @property
    def torch_device(self) -> str:
        return "cpu" if self.device == "cpu-torch" else self.device

    @property
    def modes(self) -> Sequence[str]:
        return MODES if self.device.startswith("cuda") else ("eager",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all if none is named")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--material", type=Path, default=Path(".gpu-bench"))
    parser.add_argument("--prepare", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.prepare is not None:
        prepare(options.prepare)
        return
    missing = [name for name in WHEELS if importlib.util.find_spec(name) is None]
    if missing:
        print("missing, to be carried as wheels:", " ".join(WHEELS[name] for name in missing), flush=True)
    if set(missing) - set(OPTIONAL):
        sys.exit(2)
    sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(options.device, options.quick, material(options.material, Path(scratch), quick=options.quick))
        print(describe(run), "\n", flush=True)
        print(
            "| case | ours | peer | ours faster | cosine of ours to float32, least |\n|---|---|---|---|---|", flush=True
        )
        for name, case in CASES.items():
            if not options.cases or name in options.cases:
                case(run)


def describe(run: Run) -> str:
    import torch

    told = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    if not run.device.startswith("cuda"):
        return told + f", device {run.device}"
    a = torch.randn(8192, 8192, device=run.device, dtype=torch.float16)
    seconds = timed(lambda: a @ a, run, warm=3)
    host = torch.empty(1 << 30, dtype=torch.uint8, pin_memory=True)
    copying = timed(lambda: host.to(run.device, non_blocking=True), run, warm=1)
    return (
        f"{torch.cuda.get_device_name(run.device)}, {told}, float16 {2 * 8192**3 / seconds / 1e12:.0f} TFLOP/s "
        f"(8192^3), pinned copies {1.074 / copying:.0f} GB/s"
    )


def timed(work: Encode, run: Run, *, warm: int = 0) -> float:
    """Return seconds, the device waited for."""
    import torch

    for _ in range(warm):
        work()
    if run.device.startswith("cuda"):
        torch.cuda.synchronize(run.device)
    started = time.perf_counter()
    work()
    if run.device.startswith("cuda"):
        torch.cuda.synchronize(run.device)
    return time.perf_counter() - started


def report(run: Run, case: str, unit: str, count: float, ours: Encode, peer: tuple[str, Encode], exact: Any) -> None:
    """Warm both up, run them in turns, and print a row."""
    import numpy as np

    for encode in (ours, peer[1]):
        encode()
    seconds = [(timed(ours, run), timed(peer[1], run)) for _ in range(1 if run.is_quick else PAIRS)]
    ratios = sorted(theirs / mine for mine, theirs in seconds)
    rates = [count / statistics.median(column) for column in zip(*seconds, strict=True)]
    found = np.asarray(ours(), np.float32)[: len(exact)]
    cosines = (found * exact).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
    print(
        f"| {case} | {rates[0]:,.0f} {unit}/s | {peer[0]} {rates[1]:,.0f} {unit}/s | "
        f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f}) | "
        f"{cosines.mean():.5f}, {cosines.min():.5f} |",
        flush=True,
    )


def tower() -> Any:
    """ViT-B/32's image tower, uint8 pixels in: open_clip's, or timm's where that is missing."""
    import torch

    torch.manual_seed(0)
    if importlib.util.find_spec("open_clip") is not None:
        import open_clip

        from trivium.encoders.clip.towers import ImageTower

        config = open_clip.get_model_config("ViT-B-32")
        model: Any = open_clip.CLIP(**config)
        return ImageTower(model.eval(), open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    model = timm_model()

    class Pixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels: Any) -> tuple[Any]:
            return (self.model(((pixels.float() - 123) / 69).to(self.model.head.weight.dtype)),)

    return Pixels().eval()


def timm_model() -> Any:
    import timm

    return timm.create_model("vit_base_patch32_clip_224", num_classes=512).eval()


def network(run: Run, module: Any, mode: str = "eager", longest: int | None = None) -> Any:
    import torch

    from trivium.encoders.networks.torch_runtime import TorchNetwork

    dtype = torch.float32 if run.device == "cpu-torch" else torch.float16
    return TorchNetwork(module, device=run.device, dtype=dtype, mode=mode, longest=longest)  # type: ignore[arg-type]


def float32_of(run: Run, module: Any, *inputs: Any) -> Any:
    """Return the first output in float32, of at most some hundred rows."""
    import torch

    module = module.to(run.torch_device)
    with torch.inference_mode():
        return module(*(torch.from_numpy(array).to(run.torch_device) for array in inputs))[0].float().cpu().numpy()


def tensors(run: Run) -> None:
    """Compare decoded pictures in memory to vectors in memory with timm on tensors that lie on the device already."""
    import numpy as np
    import torch

    count, batch = run.count(8192, 8), run.count(256, 4)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 224, 224), np.uint8)
    exact = float32_of(run, tower(), pixels[: run.count(256, 8)])
    dtype = torch.float32 if run.device == "cpu-torch" else torch.bfloat16
    model = timm_model().to(run.torch_device, dtype)
    forward = torch.compile(model) if run.device.startswith("cuda") else model
    ready = torch.randn(batch, 3, 224, 224, device=run.torch_device, dtype=dtype)

    def peer() -> Any:
        with torch.inference_mode():
            return [forward(ready) for _ in range(count // batch)]

    for mode in run.modes:
        ours = network(run, tower(), mode)
        name = f"tensors to ViT-B/32 ({mode}, copies included)"
        report(run, name, "img", count, lambda ours=ours: ours(pixels)[0], ("timm compiled, no copies", peer), exact)  # type: ignore[misc]


def texts(run: Run) -> None:
    from trivium.encoders.batching import encode
    from trivium.encoders.text.backbone import minilm
    from trivium.encoders.text.transformer import build_minilm

    folder = run.material / "minilm"
    captions = json.loads((run.material / "captions.json").read_text())
    count = run.count(40_000, 64)
    items = [f"{captions[number % len(captions)]} {number}" for number in range(count)]
    few = items[: run.count(512, 64)]
    plain = minilm(folder, network(dataclasses.replace(run, device="cpu-torch"), build_minilm(folder)))
    exact = plain.features(plain.prepare_all(few)).pooled

    if importlib.util.find_spec("sentence_transformers") is not None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Pooling, Transformer

        transformer = Transformer(str(folder), max_seq_length=256)
        sentences = SentenceTransformer(modules=[transformer, Pooling(384, "mean")], device=run.torch_device)
        if run.device != "cpu-torch":
            sentences.half()
        peer = ("sentence-transformers", lambda: sentences.encode(items, batch_size=512, show_progress_bar=False))
    else:
        peer = ("transformers", transformers_loop(run, folder, items))
    for mode in run.modes:
        backbone = minilm(folder, network(run, build_minilm(folder), mode, 256))
        ours = encoders(run, backbone)
        name = f"short texts to MiniLM ({mode})"
        report(run, name, "texts", count, lambda ours=ours: encode(ours, items, batch_size=8192), peer, exact)  # type: ignore[misc]


def transformers_loop(run: Run, folder: Path, items: Sequence[str]) -> Encode:
    """Sorted by length, padded to the longest of a batch, mean over tokens: what sentence-transformers does."""
    import torch
    from transformers import BertModel, PreTrainedTokenizerFast

    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]"
    )
    dtype = torch.float32 if run.device == "cpu-torch" else torch.float16
    model: Any = BertModel.from_pretrained(folder, add_pooling_layer=False)
    model = model.to(run.torch_device, dtype).eval()
    by_length = sorted(items, key=len)

    def loop() -> Any:
        found = []
        with torch.inference_mode():
            for start in range(0, len(by_length), 512):
                batch = tokenizer(
                    by_length[start : start + 512], padding=True, truncation=True, max_length=256, return_tensors="pt"
                ).to(run.torch_device)
                hidden = model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
                found.append(((hidden * mask).sum(1) / mask.sum(1)).float().cpu())
        return torch.cat(found).numpy()

    return loop


def jpegs(run: Run) -> None:
    """Compare files to vectors in each way that TRIVIUM_GPU_PICTURES names."""
    import numpy as np

    from trivium.encoders.batching import BATCH_ITEMS, encode
    from trivium.encoders.image.backbone import ImageBackbone
    from trivium.encoders.image.fit import Fit
    from trivium.encoders.image.on_gpu import DevicePictures, jpeg_decoder

    files = sorted((run.material / "photos").iterdir())
    count, size = run.count(16_384, 8), run.count(BATCH_ITEMS["gpu"]["image"], 8)
    items = [files[number % len(files)] for number in range(count)]
    fit = Fit(side=224, mode="shortest")
    ways = {
        "cpu": None,
        "resize": DevicePictures(fit, run.torch_device),
        "jpeg": DevicePictures(fit, run.torch_device, decode=jpeg_decoder(run.torch_device)),
    }
    backbones = {
        way: ImageBackbone(network(run, tower()), fit, dim=512, heads={}, layers={}, on_device=on_device)
        for way, on_device in ways.items()
    }
    few = np.stack([backbones["cpu"].prepare(path) for path in items[: run.count(256, 8)]])
    exact = float32_of(run, tower(), few)
    peer = ("DataLoader of 16 workers", data_loader(run, items))
    for way, backbone in backbones.items():
        ours = encoders(run, backbone)
        name = f"JPEG files to ViT-B/32 (pictures: {way})"
        report(run, name, "img", count, lambda ours=ours: encode(ours, items, batch_size=size), peer, exact)  # type: ignore[misc]


def data_loader(run: Run, items: Sequence[Path]) -> Encode:
    """clip-retrieval's way: Pillow and torchvision's transforms in worker processes, half precision on the device."""
    import torch
    from loader_items import Photos

    dtype = torch.float32 if run.device == "cpu-torch" else torch.float16
    model = timm_model().to(run.torch_device, dtype)

    def loop() -> Any:
        photos: Any = Photos(items)
        loader: Any = torch.utils.data.DataLoader(
            photos,
            batch_size=run.count(256, 4),
            num_workers=run.count(16, 1),
            pin_memory=run.device.startswith("cuda"),
        )
        with torch.inference_mode():
            found = [model(batch.to(run.torch_device, dtype, non_blocking=True)).float().cpu() for batch in loader]
        return torch.cat(found).numpy()

    return loop


def flacs(run: Run) -> None:
    import soundfile
    import torch

    from trivium.encoders.audio.aisfx import AiSFXNet
    from trivium.encoders.audio.backbone import AudioBackbone
    from trivium.encoders.audio.log_mel import LogMel
    from trivium.encoders.audio.on_gpu import SampleBlocks, Samples
    from trivium.encoders.batching import BATCH_ITEMS, encode
    from trivium.encoders.networks.torch_runtime import folded

    files = sorted((run.material / "sounds").iterdir())
    count = run.count(4096, 4)
    items = [files[number % len(files)] for number in range(count)]
    info = soundfile.info(str(files[0]))

    def net() -> Any:
        torch.manual_seed(0)
        return AiSFXNet().eval()

    plain = AudioBackbone(network(dataclasses.replace(run, device="cpu-torch"), net()), LogMel())
    exact = plain.features([plain.prepare(path) for path in items[: run.count(64, 4)]]).pooled
    quick = folded(net(), [torch.rand(2, 100, 96)])
    backbones = {
        "device": AudioBackbone(network(run, SampleBlocks(quick)), Samples()),
        "processor": AudioBackbone(network(run, quick), LogMel(blocks_per_pass=4096)),
    }
    loop = ("loop, mel on the device", sound_loop(run, net(), items))
    size, seconds = run.count(BATCH_ITEMS["gpu"]["audio"], 4), count * info.duration
    for where, backbone in backbones.items():
        ours = encoders(run, backbone)
        name = f"FLAC to aiSFX (mel on the {where})"
        report(run, name, "audio-s", seconds, lambda ours=ours: encode(ours, items, batch_size=size), loop, exact)  # type: ignore[misc]


def sound_loop(run: Run, net: Any, items: Sequence[Path]) -> Encode:
    """One file after the other: read here, mel and network in float32 on the device."""
    import soundfile
    import torch
    from torchaudio.functional import resample
    from torchaudio.transforms import MelSpectrogram

    mel: Any = MelSpectrogram(44_100, n_fft=2048, hop_length=1024, n_mels=96, mel_scale="htk", power=2.0)
    mel, net = mel.to(run.torch_device), net.to(run.torch_device)

    def one(path: Path) -> Any:
        waveform, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        sound = torch.from_numpy(waveform.mean(axis=1)).to(run.torch_device)
        if rate_hz != 44_100:
            sound = resample(sound, rate_hz, 44_100)
        sound = sound * (0.2 / sound.abs().max().clamp(min=1e-9))
        frames = torch.log10(1e4 * mel(sound).T + 1) / 9.457798957824707
        return net(frames.unfold(0, 100, 50).transpose(1, 2))[0].mean(dim=0)

    def loop() -> Any:
        with torch.inference_mode():
            return torch.stack([one(path) for path in items]).cpu().numpy()

    return loop


def encoders(run: Run, backbone: Any) -> Any:
    """Return the encoder for each thread that encodes, as `JointSpace.encode` has them: two on a GPU."""
    from trivium.encoders.base import Space
    from trivium.fusion.projections.plain import IdentityProjection
    from trivium.pipeline.space.projections import ProjectedEncoder

    space = Space(name="gpu-bench", dim=backbone.dim, revision="")
    encoder = ProjectedEncoder(space, backbone, IdentityProjection())
    return [encoder] * (2 if run.device.startswith("cuda") else 1)


def prepare(folder: Path) -> None:
    """Put real media and MiniLM's own tokenizer into a folder that can be carried."""
    from encoding_media import photos, sounds, texts

    from trivium.encoders.networks.weights import WEIGHTS, fetch

    for name, source in (("photos", photos(500, 375, 256)), ("sounds", sounds("flac", 40, 5))):
        shutil.copytree(source, folder / name, dirs_exist_ok=True)
    shutil.copy(texts("short", 2000), folder / "captions.json")
    (folder / "minilm").mkdir(exist_ok=True)
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(fetch(WEIGHTS["minilm-l6"]) / name, folder / "minilm" / name)
    print(f"{folder}: {sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:.0f} MB")


def material(prepared: Path, scratch: Path, *, quick: bool) -> Path:
    """Return a folder of photos, sounds, captions and a MiniLM of random weights; what is not prepared is made up."""
    import numpy as np
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    random = np.random.default_rng(0)
    for name in ("photos", "sounds"):
        if (prepared / name).is_dir():
            (scratch / name).symlink_to((prepared / name).resolve())
        else:
            print(f"no {name} in {prepared}: made up", flush=True)
            (scratch / name).mkdir()
            for number in range(4 if quick else 64):
                _made_up(scratch / name, number, random)
    captions = prepared / "captions.json"
    words = ["".join(letters) for letters in random.choice(list("abcdefghij"), (500, 5))]
    made_up = [" ".join(random.choice(words, 10)) for _ in range(2000)]
    (scratch / "captions.json").write_text(captions.read_text() if captions.exists() else json.dumps(made_up))
    folder = scratch / "minilm"
    folder.mkdir()
    if (prepared / "minilm").is_dir():
        shutil.copytree(prepared / "minilm", folder, dirs_exist_ok=True)
    else:
        print(f"no tokenizer in {prepared}: made up", flush=True)
        _make_tokenizer(words, folder / "tokenizer.json")
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    config.save_pretrained(folder)
    torch.manual_seed(0)
    state = {name: tensor.contiguous() for name, tensor in BertModel(config).state_dict().items()}
    state["embeddings.position_ids"] = torch.arange(512).unsqueeze(0)  # as the published checkpoint has it
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]", "model_max_length": 256}))
    return scratch


def _made_up(folder: Path, number: int, random: Any) -> None:
    import numpy as np
    import soundfile
    from PIL import Image

    if folder.name == "photos":
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{number:04}.jpg", quality=90)
    else:
        soundfile.write(folder / f"{number:04}.flac", random.normal(0, 0.1, 5 * 44_100).cumsum() / 50 % 1 - 0.5, 44_100)


def _make_tokenizer(words: Sequence[str], target: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(set(words)), *map(str, range(20_000))]
    tokenizer = Tokenizer(WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(target))


CASES: dict[str, Callable[[Run], None]] = {"tensors": tensors, "texts": texts, "jpegs": jpegs, "flacs": flacs}

if __name__ == "__main__":
    main()
