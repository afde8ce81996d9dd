"""Photos for torch's DataLoader, in a module of its own because its worker processes import it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torchvision import transforms

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Photos:
    """What clip-retrieval gives its loader: each file decoded and transformed as CLIP's own code does."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._transform = transforms.Compose(
            [
                transforms.Resize(224, interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, DEVIATION),
            ]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: int) -> Any:
        with Image.open(self._paths[place]) as image:
            return self._transform(image.convert("RGB"))
