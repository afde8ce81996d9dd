"""aiSFX: a convolutional network for sound effects, trained across nine libraries at once.

Source: Ma & Lerch, "Representation Learning for the Automatic Indexing of Sound Effects Libraries", ISMIR 2022
(model X-Sequential-CE); the convolutional part is the nine-layer CNN of Kong et al., "DCASE 2018 Challenge
baseline with convolutional neural networks", arXiv:1808.00773.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trivium.encoders.networks.conversions import AISFX_HEADS

WIDTHS = (64, 128, 256, 512)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each with batch norm and ReLU, then max pooling."""

    def __init__(self, channels_in: int, channels_out: int, *, pool: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels_in, t, f) to (n, channels_out, t // pool, f // pool)."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return nn.functional.max_pool2d(x, self.pool) if self.pool > 1 else x


class AiSFXNet(nn.Module):
    """Log-mel blocks in, a 512-d embedding and the class scores of each library out."""

    def __init__(self) -> None:
        super().__init__()
        channels = (1, *WIDTHS)
        pools = (2, 2, 2, 1)
        self.blocks = nn.ModuleList(ConvBlock(channels[i], channels[i + 1], pool=pools[i]) for i in range(len(WIDTHS)))
        width = WIDTHS[-1]
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(width, width // 2),
                    nn.ReLU(),
                    nn.Linear(width // 2, width // 4),
                    nn.ReLU(),
                    nn.Linear(width // 4, classes),
                )
                for name, classes in AISFX_HEADS.items()
            }
        )

    def forward(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        """Map blocks (n, t, mel) to embeddings (n, 512) and logits (n, classes), in the order of `AISFX_HEADS`."""
        x = log_mel.unsqueeze(1)  # (n, 1, t, mel)
        for block in self.blocks:
            x = block(x)
        embedding = x.mean(dim=3).amax(dim=2)  # mean over mel, maximum over time: (n, 512)
        return embedding, *(head(embedding) for head in self.heads.values())


def build_aisfx(folder: Path) -> nn.Module:
    """Load the network from ``folder`` (model.safetensors)."""
    net = AiSFXNet()
    net.load_state_dict(load_file(folder / "model.safetensors"))
    return net.eval()
