"""The front end for a GPU against the one on the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trivium.encoders import audio, device_mel
from trivium.encoders.audio import AiSFX
from trivium.encoders.audio_decoding import decode_audio
from trivium.encoders.base import unit_rows
from trivium.encoders.device_mel import BLOCK_SAMPLES, SampleBlocks, sample_blocks
from trivium.encoders.networks import PLAIN
from trivium.encoders.registry import BACKBONES, build_backbone
from trivium.encoders.torch_network import TorchNetwork

ASSETS = Path(__file__).parents[1] / "assets"


class Same(nn.Module):
    def forward(self, log_mel: Tensor) -> tuple[Tensor]:
        return (log_mel,)


def noise(samples: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=samples).astype(np.float32)


def run(network: TorchNetwork, sound: NDArray[np.float32]) -> NDArray[np.float32]:
    blocks, frames = sample_blocks(torch.from_numpy(sound))
    found: NDArray[np.float32] = network(blocks.numpy(), frames.numpy())[0]
    return found


@pytest.mark.parametrize("samples", [1, 100, 2048, 51_200, BLOCK_SAMPLES, BLOCK_SAMPLES + 51_199, 44_100 * 7])
def test_blocks_are_those_of_the_cpu(samples: int) -> None:
    sound = noise(samples)
    expected = AiSFX(TorchNetwork(Same(), device=PLAIN)).prepare((sound.copy(), 44_100))
    found = run(TorchNetwork(SampleBlocks(Same()), device=PLAIN), sound)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-3)  # 16 bits: 96 dB


def test_silence() -> None:
    assert not run(TorchNetwork(SampleBlocks(Same()), device=PLAIN), np.zeros(44_100, np.float32)).any()


def test_a_part_has_the_level_of_the_whole() -> None:
    sound = torch.from_numpy(noise(200_000))
    whole, _ = sample_blocks(sound)
    part, _ = sample_blocks(sound[:120_000] / 2, peak=float(sound.abs().max()) / 2)
    assert (part[0].int() - whole[0].int()).abs().max() <= 1


def test_the_constants_are_one() -> None:
    for name in ("RATE_HZ", "FFT_SAMPLES", "HOP_SAMPLES", "MELS", "LOG_GAIN", "LOG_FULL_SCALE", "PEAK", "BLOCK_FRAMES"):
        assert getattr(device_mel, name) == getattr(audio, name), name
    assert device_mel.BLOCK_HOP_FRAMES == audio.BLOCK_HOP_FRAMES


@pytest.mark.weights
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_sounds_have_the_same_vectors(weights: dict[str, Path], dtype: torch.dtype) -> None:
    plain = build_backbone("aisfx")
    net = BACKBONES["aisfx"].architecture(weights["aisfx"]).build()
    network = TorchNetwork(SampleBlocks(net), device=PLAIN, dtype=dtype)
    for path in (ASSETS / "crow.ogg", ASSETS / "bell.mp3", ASSETS / "beep.wav"):
        waveform, rate_hz = decode_audio(path.read_bytes())
        assert rate_hz == 44_100
        expected = plain.features([plain.prepare((waveform.copy(), rate_hz))]).pooled
        found = run(network, waveform).mean(axis=0, keepdims=True)
        assert (unit_rows(found) * unit_rows(expected)).sum() > 0.9999
