"""Peers that are programs: run whole each time, their model's loading taken out of the time.

clip-retrieval tells in its own statistics how long reading, inference and writing took after its warm-up. rclip is run
over all photos and over one; the difference is the others' time.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
from encoding_media import FOLDER

CLIP_RETRIEVAL = os.environ.get("TRIVIUM_CLIP_RETRIEVAL")  # the program's path
RCLIP = os.environ.get("TRIVIUM_RCLIP")
RCLIP_MODEL = "ViT-B-32-256"
RCLIP_FOLDER = "ViT-B-32-256-datacomp_s34b_b86k"  # where rclip looks for its exported towers


def clip_retrieval(photos: Path, checkpoint: str, model: str) -> tuple[float, np.ndarray]:
    """Return seconds and vectors, half precision as it writes them."""
    assert CLIP_RETRIEVAL is not None
    out = FOLDER / "clip-retrieval"
    shutil.rmtree(out, ignore_errors=True)
    command = [CLIP_RETRIEVAL, "inference", "--input_dataset", str(photos), "--output_folder", str(out)]
    command += ["--clip_model", f"open_clip:{model}/{checkpoint}", "--enable_text", "False", "--batch_size", "32"]
    command += ["--num_prepro_workers", "1"]  # beside the process that runs the network: two cores
    _run(command, photos, {})
    stats = json.loads((out / "stats" / "0.json").read_text())
    return float(stats["total_duration"]), np.load(out / "img_emb" / "img_emb_0.npy").astype(np.float32)


def rclip_checkpoint() -> str:
    """Make random weights by seed, and rclip's data folder with the same; return the checkpoint's path."""
    path = FOLDER / "vitb32-256.pt"
    data = FOLDER / "rclip"
    towers = data / RCLIP_FOLDER
    if path.exists() and (towers / "textual.onnx").exists():
        return str(path)
    import open_clip
    import torch

    towers.mkdir(parents=True, exist_ok=True)
    (data / "tokenizer").mkdir(exist_ok=True)
    for name in ("LICENSE", "OPENAI-CLIP-MIT.txt", "README.md", "THIRD_PARTY_NOTICES.md"):
        (data / name).write_text("for a benchmark\n")
    shutil.copy(Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz", data / "tokenizer")
    torch.manual_seed(0)
    model = open_clip.create_model(RCLIP_MODEL).eval()
    torch.save(model.state_dict(), path)
    torch.backends.mha.set_fastpath_enabled(False)

    class Text(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.model.encode_text(tokens)  # type: ignore[no-any-return]

    size = model.visual.image_size[0]
    for name, tower, example in (
        ("visual", model.visual, torch.randn(1, 3, size, size)),
        ("textual", Text(), torch.ones(1, 77, dtype=torch.long)),
    ):
        torch.onnx.export(
            tower,
            (example,),
            str(towers / f"{name}.onnx"),
            dynamo=False,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "n"}, "output": {0: "n"}},
            opset_version=17,
        )
    return str(path)


def rclip(photos: Path) -> float:
    """Index a folder and answer one query; return the seconds of the whole process."""
    assert RCLIP is not None
    rclip_checkpoint()
    for left in (FOLDER / "rclip").glob("db.sqlite3*"):
        left.unlink()
    return _run([RCLIP, "--filepath-only", "--top", "3", "a fish"], photos, {"RCLIP_DATADIR": str(FOLDER / "rclip")})


def rclip_query(photos: Path) -> float:
    """Answer one query over what is indexed; return the seconds of the whole process."""
    assert RCLIP is not None
    command = [RCLIP, "--no-indexing", "--filepath-only", "--top", "3", "a fish"]
    return _run(command, photos, {"RCLIP_DATADIR": str(FOLDER / "rclip")})


def _run(command: list[str], folder: Path, variables: dict[str, str]) -> float:
    threads = str(os.cpu_count())
    environment = {**os.environ, **variables, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": threads}
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started
