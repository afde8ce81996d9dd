"""What a JPEG says before its picture begins: whether it is so plain that every decoder makes the same of it.

Source: ITU-T T.81 (markers, frame header), JEITA CP-3451 (Exif), Adobe Technical Note 5116 (APP14).
"""

from typing import Literal

from trivium.encoders.decoding.pictures import MAX_PIXELS

MAX_BYTES = 16 << 20  # photos of 50 megapixels have as much
MAX_SEGMENTS = 300  # before the picture; a profile of colours has up to 255
MAX_SCANS = 64  # a progressive picture has about 10; each goes over all of it
SOS, APP1, APP14 = 0xDA, 0xE1, 0xEE
FRAMES = (0xC0, 0xC1, 0xC2)  # Huffman: baseline, extended, progressive
OTHERS = (0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))  # tables, comments, applications' own
SAMPLINGS = (0x11, 0x12, 0x21, 0x22, 0x41)  # of brightness; that of colours is 1 x 1
ORIENTATION = 0x0112
SHORT = 3  # a type of Exif


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
