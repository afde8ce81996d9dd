"""The front end for a GPU against the one on the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from assets import ASSETS
from trivium.encoders.audio.backbone import AudioBackbone
from trivium.encoders.audio.log_mel import FFT_SAMPLES, LogMel
from trivium.encoders.audio.on_gpu import BLOCK_SAMPLES, BLOCKS_PER_PASS, SampleBlocks, Samples
from trivium.encoders.base import unit_rows
from trivium.encoders.decoding.sounds import decode_audio
from trivium.encoders.devices import PLAIN
from trivium.encoders.networks.torch_runtime import TorchNetwork
from trivium.encoders.registry import BACKBONES, build_backbone
from trivium.encoders.sandbox.streams import SoundStream


class Same(nn.Module):
    def forward(self, log_mel: Tensor) -> tuple[Tensor]:
        return (log_mel,)


def noise(samples: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=samples).astype(np.float32)


def run(network: TorchNetwork, sound: NDArray[np.float32]) -> NDArray[np.float32]:
    front_end = Samples()
    passes = front_end.passes([front_end.whole(sound.copy(), 44_100)])
    return np.concatenate([network(*inputs)[0] for inputs in passes])


@pytest.mark.parametrize("samples", [1, 100, 2048, 51_200, BLOCK_SAMPLES, BLOCK_SAMPLES + 51_199, 44_100 * 7])
def test_blocks_are_those_of_the_cpu(samples: int) -> None:
    sound = noise(samples)
    expected = LogMel().whole(sound.copy(), 44_100)
    found = run(TorchNetwork(SampleBlocks(Same()), device=PLAIN), sound)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-3)  # 16 bits: 96 dB


def test_silence() -> None:
    assert not run(TorchNetwork(SampleBlocks(Same()), device=PLAIN), np.zeros(44_100, np.float32)).any()


def test_a_sound_waits_as_its_samples() -> None:
    """Two bytes each; its blocks are cut when their pass comes, with those of other sounds."""
    front_end = Samples()
    sounds = [noise(samples) for samples in (44_100, 3_000_000, 1, 44_100 * 60)]
    batch = [front_end.whole(sound.copy(), 44_100) for sound in sounds]
    assert [(item.dtype.name, len(item)) for item in batch] == [("int16", len(sound) + FFT_SAMPLES) for sound in sounds]
    log_mel = [LogMel().whole(sound.copy(), 44_100) for sound in sounds]
    assert [front_end.count(item) for item in batch] == [len(blocks) for blocks in log_mel] == [1, 57, 1, 50]
    together = [inputs for inputs in front_end.passes(batch * 5)]
    assert [len(blocks) for blocks, _ in together] == [BLOCKS_PER_PASS, 5 * 109 - BLOCKS_PER_PASS]
    assert [int(count) for count in together[0][1][[0, 1, 57, 58]]] == [44, 100, 100, 1]
    assert next(front_end.passes([]), None) is None


@pytest.mark.parametrize("name", ["cuda:0", "meta"])
def test_which_front_end_a_device_has(name: str) -> None:
    class Nothing:
        device = name

    backbone = BACKBONES["aisfx"].build(Path(), Nothing())  # type: ignore[arg-type]
    assert isinstance(backbone._front_end, Samples)  # type: ignore[attr-defined]
    for device in ("cpu", PLAIN):
        Nothing.device = device
        backbone = BACKBONES["aisfx"].build(Path(), Nothing())  # type: ignore[arg-type]
        assert isinstance(backbone._front_end, LogMel)  # type: ignore[attr-defined]


@pytest.mark.weights
def test_a_gpu_gets_a_network_of_samples(weights: dict[str, Path]) -> None:
    """With batch norms folded, in half precision; the device is torch's that computes nothing."""
    backbone = build_backbone("aisfx", device="meta")
    module = backbone._network._module  # type: ignore[attr-defined]
    assert isinstance(module, SampleBlocks)
    assert not any(isinstance(child, nn.BatchNorm2d) for child in module.modules())
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float16}


@pytest.mark.weights
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_sounds_have_the_same_vectors(weights: dict[str, Path], dtype: torch.dtype) -> None:
    """Whole, in a batch of several."""
    plain = build_backbone("aisfx")
    net = BACKBONES["aisfx"].architecture(weights["aisfx"]).build()
    ours = AudioBackbone(TorchNetwork(SampleBlocks(net), device=PLAIN, dtype=dtype), Samples())
    paths = [ASSETS / name for name in ("crow.ogg", "bell.mp3", "beep.wav")]
    sounds = [decode_audio(path.read_bytes()) for path in paths]
    sounds.append((sounds[0][0][::2].copy(), 22_050))  # which is resampled
    expected = plain.features([plain.prepare((waveform.copy(), rate_hz)) for waveform, rate_hz in sounds])
    found = ours.features([ours.prepare((waveform.copy(), rate_hz)) for waveform, rate_hz in sounds])
    assert (unit_rows(found.pooled) * unit_rows(expected.pooled)).sum(axis=1).min() > 0.9999
    for head, logits in expected.logits.items():
        assert (unit_rows(found.logits[head]) * unit_rows(logits)).sum(axis=1).min() > 0.999


@pytest.mark.weights
def test_a_stream_has_the_features_of_the_whole(weights: dict[str, Path]) -> None:
    net = BACKBONES["aisfx"].architecture(weights["aisfx"]).build()
    ours = AudioBackbone(TorchNetwork(SampleBlocks(net), device=PLAIN), Samples())
    waveform = noise(44_100 * 5)
    stream = SoundStream(len(waveform), 44_100, float(np.abs(waveform).max()), iter(np.split(waveform, 5)))
    (whole,) = ours.blocks((waveform.copy(), 44_100))
    parts = list(ours.blocks(stream))
    found, expected = (ours.block_features(batch) for batch in (parts, [whole]))
    assert found.pooled.shape == expected.pooled.shape == (3, 512)
    np.testing.assert_allclose(found.pooled, expected.pooled, atol=1e-4)
