"""The shape of the aiSFX network, without its weights."""

import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from trivium.encoders.audio.aisfx import AiSFXNet
from trivium.encoders.networks.conversions import AISFX_HEADS, from_checkpoint_names


@pytest.fixture(scope="module")
def net() -> AiSFXNet:
    torch.manual_seed(0)
    return AiSFXNet().eval()


def test_parameters_of_the_convolutional_part(net: AiSFXNet) -> None:
    """Kernels of 3 x 3 between the widths, and a factor and an offset per channel for each batch norm."""
    widths = [1, 64, 64, 128, 128, 256, 256, 512, 512]
    expected = sum(9 * before * after + 2 * after for before, after in pairwise(widths))
    assert expected == 4_686_144
    assert sum(parameter.numel() for parameter in net.blocks.parameters()) == expected


def test_shapes(net: AiSFXNet) -> None:
    with torch.inference_mode():
        embedding, *logits = net(torch.rand(3, 100, 96))
    assert embedding.shape == (3, 512)
    assert [tuple(scores.shape) for scores in logits] == [(3, classes) for classes in AISFX_HEADS.values()]


def test_embedding_is_the_mean_over_mel_and_the_maximum_over_time(net: AiSFXNet) -> None:
    with torch.inference_mode():
        block = torch.rand(1, 100, 96)
        x = block.unsqueeze(1)
        for layer in net.blocks:
            x = layer(x)
        assert x.shape == (1, 512, 12, 12)  # halved three times, rounded down
        expected = [max(float(channel[t].mean()) for t in range(12)) for channel in x[0]]
        torch.testing.assert_close(net(block)[0][0], torch.tensor(expected))


def test_checkpoint_names(net: AiSFXNet) -> None:
    """Written as the published checkpoint names them, the tensors are found again under ours."""
    published = {}
    for name, tensor in net.state_dict().items():
        part, which, rest = name.split(".", 2)
        if part == "blocks":
            published[f"embedding_net.conv_block{int(which) + 1}.{rest}"] = tensor
        else:
            published[f"classifiers.{list(AISFX_HEADS).index(which)}.{rest}"] = tensor
    renamed = from_checkpoint_names(published)
    assert renamed.keys() == net.state_dict().keys()
    assert all(
        renamed[name] is published_tensor for name, published_tensor in zip(renamed, published.values(), strict=True)
    )


def test_torchaudio_is_there_before_threads_want_it() -> None:
    """Two threads that import it at once may fail: `cannot import name ... from partially initialized module`."""
    code = (
        "import sys\nfrom unittest.mock import Mock\nfrom trivium.encoders.audio.backbone import AudioBackbone\n"
        "AudioBackbone(Mock(), Mock())\nassert {'torchaudio.functional', 'torchaudio.transforms'} <= set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
