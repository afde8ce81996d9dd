"""Checkpoints of training: tensors as safetensors and a JSON file that names them; whole or not at all, never pickled.

The tensors are written first, under a name of their own; then one rename makes the JSON file say that they are the
newest. A run that is killed at any moment finds the checkpoint before or the one after.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trivium.encoders.files.durable import file_sha256, write_durably
from trivium.encoders.files.foreign import read_foreign_json
from trivium.encoders.files.tensors import read_tensors
from trivium.encoders.files.whole_file import make_folder

STATE_FILE = "checkpoint.json"
TENSORS = re.compile(r"checkpoint-[0-9a-f]{16}\.safetensors")
MAX_BYTES = 64 << 30
FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used."""


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Keep a checkpoint, and drop the one before.

    Args:
        folder: Made if it is not there.
        tensors: By name.
        state: What JSON can hold.

    Raises:
        OSError: If the disk is full or fails; the one before is still there then.
    """
    from safetensors.torch import save

    make_folder(folder)
    data = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
    name = f"checkpoint-{hashlib.sha256(data).hexdigest()[:16]}.safetensors"
    written = write_durably(folder / name, lambda write: write(data))
    told = {"format": FORMAT, "tensors": name, "sha256": written.sha256, "state": state}
    write_durably(folder / STATE_FILE, lambda write: write(json.dumps(told, indent=1).encode()))
    _drop_tensors(folder, but=name)


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the newest checkpoint's tensors and state; None if there is none.

    Raises:
        CheckpointError: If it is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        told = read_foreign_json(path)
        if told["format"] != FORMAT:
            raise CheckpointError(f"{path} has format {told['format']!r}, this Trivium reads format {FORMAT}")
        name, state = str(told["tensors"]), dict(told["state"])
        if TENSORS.fullmatch(name) is None or file_sha256(folder / name) != told["sha256"]:
            raise CheckpointError(f"{folder / name} is not what was written: remove {folder} to begin anew")
        found = read_tensors(folder / name, max_bytes=MAX_BYTES)
        return {key: torch.from_numpy(tensor) for key, tensor in found.items()}, state
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be used: {error}; remove {folder} to begin anew") from error


def drop_checkpoint(folder: Path) -> None:
    """Remove what a run that has come to its end does not need."""
    if not folder.is_dir() or folder.is_symlink():
        return
    (folder / STATE_FILE).unlink(missing_ok=True)
    _drop_tensors(folder)
    if not any(folder.iterdir()):
        folder.rmdir()


def _drop_tensors(folder: Path, *, but: str = "") -> None:
    """Remove what `save_checkpoint` wrote, and nothing that only looks like it."""
    for file in folder.glob("checkpoint-*.safetensors"):
        if file.name != but and TENSORS.fullmatch(file.name):
            file.unlink()
