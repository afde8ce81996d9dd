"""Pictures that the device brings to size, and JPEGs that it decodes, so that the processor only reads and sends.

Whole pixels come from the sandbox, as ever. Where the device decodes, it is files from anywhere that this very process
hands to nvJPEG: a flaw there is not held by the sandbox, so users have to ask for it (TRIVIUM_GPU_PICTURES=jpeg). Only
files whose header is plain (`jpeg_header`) go that way, and what the device refuses is given to the sandbox after all.
Never run on a GPU so far; tested with torch's CPU as the device.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trivium.encoders.base import Prepared
from trivium.encoders.engine import in_batches
from trivium.encoders.image.fit import Fit, rgb_pixels
from trivium.encoders.image.jpeg_header import plain_jpeg_size
from trivium.encoders.networks.torch_runtime import made_current
from trivium.encoders.sandbox.pool import DecodeSandbox

# Squares of the side that a picture may fill to be sent whole: what scaled decoding leaves of a JPEG of 16:9 (at most
# 4 by 7.1 sides). Larger ones would fill the memory while they wait, and are fitted by the processor.
MOST_SQUARES = 30
CHUNK_BYTES = 256 << 20  # of pixels that lie on the device before they are fitted; one picture may have more
Decode: TypeAlias = Callable[[list[Tensor]], list[Tensor]]  # files (bytes,) to pictures (3, h, w) of uint8


def jpeg_decoder(device: str) -> Decode:
    """Return torchvision's decoder: nvJPEG on a GPU."""
    from torchvision.io import ImageReadMode, decode_jpeg

    untyped: Any = decode_jpeg  # what it returns depends on what it is given
    decode: Decode = partial(untyped, mode=ImageReadMode.RGB, device=device)
    return _apart(decode, torch.device(device)) if device.startswith("cuda") else decode


def _apart(decode: Decode, device: torch.device) -> Decode:
    """Let torchvision allocate pictures on a stream on which nothing is queued.

    It decodes on a stream of its own that does not wait for the caller's. In memory that the caller has given back, but
    whose content is still to be read, it would write too early (pytorch/vision, pull request 9606).
    """
    make_stream: Any = torch.cuda.Stream  # not typed
    aside = make_stream(device)

    def decoded(files: list[Tensor]) -> list[Tensor]:
        computing = torch.cuda.current_stream(device)
        with torch.cuda.stream(aside):
            pictures = decode(files)
        computing.wait_stream(aside)
        for picture in pictures:
            picture.record_stream(computing)  # its memory is given to no other before that has read it
        return pictures

    return decoded


class DevicePictures:
    """Makes squares on a device of what `prepare` gives; safe to call from several threads.

    A prepared picture is one of: a square of the processor's (3, side, side); whole pixels (h, w, 3); a file (bytes,).
    """

    def __init__(self, fit: Fit, device: str, *, decode: Decode | None = None) -> None:
        """Prepare.

        Args:
            fit: What the network takes.
            device: As torch names it.
            decode: Decodes JPEGs; raises a RuntimeError if it cannot decode one of them. None: the device decodes none.
        """
        self._fit = fit
        self._square = (3, fit.side, fit.side)
        self._device = torch.device(device)
        self._decode = decode
        self._sandbox = DecodeSandbox(1)  # for what the device refuses; starts nothing before

    def takes_file(self, data: bytes) -> bool:
        """Whether the device decodes a file."""
        return self._decode is not None and plain_jpeg_size(data) is not None

    def prepare(self, content: Any) -> Prepared:
        """Leave to the device what it can do.

        Raises:
            DecodeError: See `decode_image`.
        """
        if isinstance(content, bytes) and self.takes_file(content):
            return np.frombuffer(bytearray(content), np.uint8)
        pixels = rgb_pixels(content, side=self._fit.side)
        is_small = pixels.size <= 3 * MOST_SQUARES * self._fit.side**2
        return pixels if is_small else self._fit.of_pixels(pixels)

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Prepared]) -> Tensor:
        """Return squares of uint8 on the device, (n, 3, side, side).

        Raises:
            DecodeError: If a file can be decoded neither there nor in the sandbox.
            MemoryError: If the device has not enough.
        """
        try:
            with made_current(self._device):
                chunks = in_batches(batch, sys.maxsize, _pixel_bytes, CHUNK_BYTES)
                return torch.cat([square for chunk in chunks for square in self._squares(chunk)])
        except torch.OutOfMemoryError:
            raise MemoryError(f"{len(batch)} pictures are too large for the memory of {self._device}") from None

    def _squares(self, chunk: Sequence[Prepared]) -> list[Tensor]:
        """Return squares (1, 3, side, side)."""
        files = [place for place, item in enumerate(chunk) if item.ndim == 1]
        pixels = [place for place, item in enumerate(chunk) if item.ndim == 3]
        pictures = dict(zip(files, self._decoded([chunk[place] for place in files]), strict=True))
        pictures |= zip(pixels, self._sent([chunk[place] for place in pixels]), strict=True)
        return [
            picture if picture.shape[1:] == self._square else self._fit(picture)
            for picture in (pictures[place] for place in range(len(chunk)))
        ]

    def _sent(self, arrays: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """Send pixels in one copy; return pictures (1, 3, h, w)."""
        if not arrays:
            return []
        sizes = [array.size for array in arrays]
        host = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        places = np.split(host.numpy(), np.cumsum(sizes)[:-1])
        for place, array in zip(places, arrays, strict=True):
            np.copyto(place.reshape(array.shape), array)
        parts = torch.split(host.to(self._device, non_blocking=True), sizes)
        sent = [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]
        return [(part if part.shape == self._square else part.permute(2, 0, 1)).unsqueeze(0) for part in sent]

    def _decoded(self, files: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """Decode JPEGs to pictures (1, 3, h, w)."""
        if not files:
            return []
        assert self._decode is not None  # else none would have been taken
        try:
            return [picture.unsqueeze(0) for picture in self._decode([torch.from_numpy(file) for file in files])]
        except RuntimeError:  # one is refused, and then none is given
            if len(files) > 1:
                return [picture for file in files for picture in self._decoded([file])]
        pixels = self._sandbox.decode("image", files[0].tobytes(), side=self._fit.side)
        return self._sent([self._fit.of_pixels(pixels)])


def _pixel_bytes(item: Prepared) -> float:
    """Bytes that a prepared picture's pixels take."""
    if item.ndim == 3:
        return item.nbytes
    height, width = plain_jpeg_size(item.tobytes()) or (0, 0)
    return 3 * height * width
