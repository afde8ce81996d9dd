"""Checkpoints of training: tensors as safetensors and a JSON file that names them; whole or not at all, never pickled.

The tensors are written first, under a name of their own; then one rename makes the JSON file say that they are the
newest. A run that is killed at any moment finds the checkpoint before or the one after.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from trivium.pipeline.durable import file_sha256, write_durably

STATE_FILE = "checkpoint.json"
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

    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
    name = f"checkpoint-{hashlib.sha256(data).hexdigest()[:16]}.safetensors"
    written = write_durably(folder / name, lambda write: write(data))
    told = {"format": FORMAT, "tensors": name, "sha256": written.sha256, "state": state}
    write_durably(folder / STATE_FILE, lambda write: write(json.dumps(told, indent=1).encode()))
    for other in folder.glob("checkpoint-*.safetensors"):
        if other.name != name:
            other.unlink()


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the newest checkpoint's tensors and state; None if there is none.

    Raises:
        CheckpointError: If it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        told = json.loads(path.read_bytes())
        if told["format"] != FORMAT:
            raise CheckpointError(f"{path} has format {told['format']!r}, this Trivium reads format {FORMAT}")
        name, state = str(told["tensors"]), dict(told["state"])
        if Path(name).name != name or file_sha256(folder / name) != told["sha256"]:
            raise CheckpointError(f"{folder / name} is not what was written: remove {folder} to begin anew")
        return load_file(folder / name), state
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be used: {error}; remove {folder} to begin anew") from error


def drop_checkpoint(folder: Path) -> None:
    """Remove what a run that has come to its end does not need."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    for file in folder.glob("checkpoint-*.safetensors"):
        file.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
