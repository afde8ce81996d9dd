"""Checkpoints: kept and found, the newest alone, a kill between the two files, damage."""

from pathlib import Path

import pytest
import torch

from trivium.encoders.files.durable import write_durably
from trivium.pipeline.text_learning import checkpoint
from trivium.pipeline.text_learning.checkpoint import CheckpointError, drop_checkpoint, load_checkpoint, save_checkpoint


def test_the_newest_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert load_checkpoint(folder) is None
    for number in (1.0, 2.0):
        save_checkpoint(folder, {"weight": torch.full((2,), number)}, {"done": number})
    found = load_checkpoint(folder)
    assert found is not None
    assert found[0]["weight"].tolist() == [2.0, 2.0]
    assert found[1] == {"done": 2.0}
    assert len(list(folder.iterdir())) == 2
    drop_checkpoint(folder)
    assert not folder.exists()


def test_a_kill_before_the_rename_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, {"weight": torch.zeros(1)}, {"done": 1})
    real = write_durably

    def killed(path: Path, produce):
        if path.name == checkpoint.STATE_FILE:
            raise KeyboardInterrupt
        return real(path, produce)

    monkeypatch.setattr(checkpoint, "write_durably", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, {"weight": torch.ones(1)}, {"done": 2})
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found[1] == {"done": 1}


def test_damage_is_told(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"weight": torch.zeros(8)}, {"done": 1})
    (file,) = tmp_path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="is not what was written"):
        load_checkpoint(tmp_path)
    file.unlink()
    with pytest.raises(CheckpointError, match="cannot be used"):
        load_checkpoint(tmp_path)
    (tmp_path / "checkpoint.json").write_text('{"format": 9}')
    with pytest.raises(CheckpointError, match="has format 9, this Trivium reads format 1"):
        load_checkpoint(tmp_path)
