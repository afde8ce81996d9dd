"""Pictures that the device brings to size, and JPEGs that it decodes, so that the processor only reads and sends.

Whole pixels come from the sandbox, as ever. Where the device decodes, it is files from anywhere that this very process
hands to nvJPEG: a flaw there is not held by the sandbox, so users have to ask for it (TRIVIUM_GPU_PICTURES=jpeg). Only
files go that way whose header is so plain that every decoder makes the same of them (`plain_jpeg_size`), and what the
device refuses is given to the sandbox after all. Never run on a GPU so far; tested with torch's CPU as the device.

Source of the header: ITU-T T.81 (markers, frame header), JEITA CP-3451 (Exif), Adobe Technical Note 5116 (APP14).
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trivium.encoders.base import Prepared
from trivium.encoders.decoding.pictures import MAX_PIXELS
from trivium.encoders.engine import in_batches
from trivium.encoders.image.fit import Fit, rgb_pixels
from trivium.encoders.networks.torch_runtime import made_current
from trivium.encoders.sandbox.pool import DecodeSandbox

# Squares of the side that a picture may fill to be sent whole: what scaled decoding leaves of a JPEG of 16:9 (at most
# 4 by 7.1 sides). Larger ones would fill the memory while they wait, and are fitted by the processor.
MOST_SQUARES = 30
CHUNK_BYTES = 256 << 20  # of pixels that lie on the device before they are fitted; one picture may have more
Decode: TypeAlias = Callable[[list[Tensor]], list[Tensor]]  # files (bytes,) to pictures (3, h, w) of uint8
MAX_BYTES = 16 << 20  # photos of 50 megapixels have as much
MAX_SEGMENTS = 300  # before the picture; a profile of colours has up to 255
MAX_SCANS = 64  # a progressive picture has about 10; each goes over all of it
SOS, APP1, APP14 = 0xDA, 0xE1, 0xEE
FRAMES = (0xC0, 0xC1, 0xC2)  # Huffman: baseline, extended, progressive
OTHERS = (0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))  # tables, comments, applications' own
SAMPLINGS = (0x11, 0x12, 0x21, 0x22, 0x41)  # of brightness; that of colours is 1 x 1
ORIENTATION = 0x0112
SHORT = 3  # a type of Exif


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


def plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width of a plain JPEG, None for any other file.

    Plain is: 8 bits, Huffman codes, grey or YCbCr with usual sampling, upright, with an end, at most `MAX_PIXELS` and
    `MAX_BYTES`. Takes microseconds whatever the file holds.
    """
    if not data.startswith(b"\xff\xd8") or len(data) > MAX_BYTES:
        return None
    size = None
    has_exif = False
    place = 2
    for _ in range(MAX_SEGMENTS):
        mark, marker, length = data[place : place + 1], data[place + 1 : place + 2], data[place + 2 : place + 4]
        end = place + 2 + int.from_bytes(length)
        if mark != b"\xff" or len(length) < 2 or end < place + 4 or end > len(data):
            return None
        body = data[place + 4 : end]
        if marker[0] == SOS:
            is_sane = data.find(b"\xff\xd9", end) >= 0 and data.count(b"\xff\xda", place) <= MAX_SCANS
            return size if is_sane else None
        if marker[0] in FRAMES:
            if size is not None or (size := _frame_size(body)) is None:
                return None
        elif marker[0] not in OTHERS or (marker[0] == APP14 and not _is_ycbcr(body)):
            return None
        elif marker[0] == APP1:
            is_exif = body.startswith(b"Exif")
            if (is_exif and (has_exif or not _is_upright(body))) or (not is_exif and b"Orientation" in body):
                return None
            has_exif |= is_exif
        place = end
    return None


def _frame_size(body: bytes) -> tuple[int, int] | None:
    if len(body) < 9 or body[0] != 8 or len(body) != 6 + 3 * body[5]:
        return None
    height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
    identities, samplings = tuple(body[6::3]), tuple(body[7::3])
    is_known = identities == (1, 2, 3) and samplings[1:] == (0x11, 0x11)
    is_known |= len(identities) == 1
    if not is_known or samplings[0] not in SAMPLINGS or not 0 < height * width <= MAX_PIXELS:
        return None
    return height, width


def _is_ycbcr(body: bytes) -> bool:
    return not body.startswith(b"Adobe") or body[11:12] == b"\x01"


def _is_upright(body: bytes) -> bool:
    """Whether an Exif block can be read and says nothing else than that the picture is upright."""
    exif = body[6:]
    orders: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
    order = orders.get(exif[:4])
    if order is None or len(exif) < 8:
        return False
    start = int.from_bytes(exif[4:8], order)
    count = int.from_bytes(exif[start : start + 2], order)
    entries = exif[start + 2 : start + 2 + 12 * count]
    if len(exif) < start + 2 or len(entries) < 12 * count:
        return False
    upright = (
        ORIENTATION.to_bytes(2, order) + SHORT.to_bytes(2, order) + (1).to_bytes(4, order) + (1).to_bytes(2, order)
    )
    return all(
        int.from_bytes(entries[place : place + 2], order) != ORIENTATION or entries[place : place + 10] == upright
        for place in range(0, len(entries), 12)
    )
