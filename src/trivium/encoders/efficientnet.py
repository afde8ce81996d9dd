"""EfficientNet-Lite0 in torch: pixels in, pooled features (1280-d) and the scores of 1,000 ImageNet classes out.

Source: Tan & Le, "EfficientNet", ICML 2019; the Lite0 variant and its preprocessing are Google's.
"""

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

# The checkpoint expects (x - 127) / 128 on 0..255 (Google's Lite models, not the ImageNet mean and deviation).
OFFSET, SCALE = 127.0, 128.0


class CutClassifier(nn.Module):
    """A timm classifier that gives its pooled features too."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 pixels (n, 3, h, w) to pooled features (n, 1280) and class scores (n, 1000)."""
        x = (pixels.to(self.model.classifier.weight.dtype) - OFFSET) / SCALE
        x = x.contiguous(memory_format=torch.channels_last)
        pooled = self.model.forward_head(self.model.forward_features(x), pre_logits=True)
        return pooled, self.model.classifier(pooled)


def build_efficientnet_lite0(folder: Path) -> nn.Module:
    """Load the network from ``folder`` (model.safetensors with timm's names)."""
    model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return CutClassifier(model.to(memory_format=torch.channels_last)).eval()
