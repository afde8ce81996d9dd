"""Camera raw files to the picture that the camera put beside its sensor's data: by LibRaw, the extra ``raw``.

Nothing is developed: the preview is what the camera showed, in most of full size or nearly so, and takes as long as a
JPEG. A raw file is told by its content, for Pillow takes many of them for TIFF, and shows a thumbnail.
"""

import io
import struct

import numpy as np
from PIL import Image

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.sources import Source

# Olympus and Panasonic have a mark of their own where TIFF has 42; Fuji and Canon's CR3 are no TIFF.
MARKS = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW")
TIFF = {b"II*\0": "<", b"MM\0*": ">"}
CANON_AT, CANON = 8, b"CR"
HEAD_BYTES = 1 << 16
ENTRY = 12
NEW_SUBFILE_TYPE, SUB_IFDS, DNG_VERSION = 254, 330, 50706
IS_REDUCED = 1
QUARTERS = {3: 2, 5: 1, 6: 3}  # how LibRaw says that a picture is to be turned, counterclockwise


def is_raw(data: Source) -> bool:
    """Whether a file is a camera's raw one."""
    head = data[:HEAD_BYTES]
    if head.startswith(MARKS) or head[4:12] == b"ftypcrx ":
        return True
    order = TIFF.get(head[:4])
    if order is None:
        return False
    if head[CANON_AT : CANON_AT + 2] == CANON:
        return True
    tags = _tags(head, order)
    # Nikon, Sony and others: the first picture is a small one, and the large ones lie below it.
    return DNG_VERSION in tags or bool(tags.get(NEW_SUBFILE_TYPE, 0) & IS_REDUCED and SUB_IFDS in tags)


def preview_of(data: bytes) -> bytes:
    """Return the preview that a camera put into its raw file, as a JPEG or BMP file.

    Raises:
        DecodeError: If there is none, it is no raw file that LibRaw reads, or the extra is not installed.
    """
    try:
        import rawpy
    except ImportError:
        raise DecodeError("a camera's raw file: needs trivium[raw] (run pip install 'trivium[raw]')") from None
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            found, turned = raw.extract_thumb(), raw.sizes.flip
    except rawpy.LibRawNoThumbnailError:
        raise DecodeError("a raw file without a preview in it, which is what is indexed of one") from None
    except rawpy.LibRawError as error:
        reason = error.args[0].decode(errors="replace") if error.args else type(error).__name__
        raise DecodeError(f"not a raw file that can be read: {reason}") from error
    if found.format != rawpy.ThumbFormat.JPEG:
        file = io.BytesIO()
        Image.fromarray(np.rot90(found.data, QUARTERS.get(turned, 0))).save(file, "BMP")
        return file.getvalue()
    return bytes(found.data)  # LibRaw has put in how it is turned, where it does not say so itself


def _tags(head: bytes, order: str) -> dict[int, int]:
    """Read the first directory of a TIFF, as far as it lies in the head: values by tag, as if all were LONG."""
    start = int.from_bytes(head[4:8], "little" if order == "<" else "big")
    if start + 2 > len(head):
        return {}
    (count,) = struct.unpack_from(f"{order}H", head, start)
    entries = range(start + 2, min(start + 2 + ENTRY * count, len(head) - ENTRY + 1), ENTRY)
    return {tag: value for tag, _, _, value in (struct.unpack_from(f"{order}HHII", head, at) for at in entries)}
