"""EfficientNet-Lite0 in torch: pixels in, pooled features (1280-d) and the scores of 1,000 ImageNet classes out.

Source: Tan & Le, "EfficientNet", ICML 2019; the Lite0 variant and its preprocessing are Google's.
"""

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trivium.encoders.base import IMAGE_GROUPS

# The checkpoint expects (x - 127) / 128 on 0..255 (Google's Lite models, not the ImageNet mean and deviation).
OFFSET, SCALE = 127.0, 128.0


class CutClassifier(nn.Module):
    """A timm EfficientNet that gives its pooled features, its classes' scores and what inner layers say."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Map uint8 pixels (n, 3, h, w) to pooled features (n, 1280), class scores (n, 1000) and `IMAGE_LAYERS`."""
        x = (pixels.to(self.model.classifier.weight.dtype) - OFFSET) / SCALE
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.model.bn1(self.model.conv_stem(x))
        layers = []
        for group, blocks in enumerate(self.model.blocks):
            x = blocks(x)
            if group in IMAGE_GROUPS.values():
                layers.append(torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1))
        x = self.model.bn2(self.model.conv_head(x))
        pooled = self.model.forward_head(x, pre_logits=True)
        return pooled, self.model.classifier(pooled), *layers


def build_efficientnet_lite0(folder: Path) -> nn.Module:
    """Load the network from ``folder`` (model.safetensors with timm's names)."""
    model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return CutClassifier(model.to(memory_format=torch.channels_last)).eval()
