"""Text files to strings: encodings guessed conservatively, binary files refused."""

import codecs
import re

from trivium.encoders.base import DecodeError
from trivium.encoders.files import stopping

MAX_LINE_CHARACTERS = 1000
PIECE_BYTES = 1 << 20
LINE = re.compile(r"[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")  # as `str.splitlines` has it


def decode_text(data: bytes | bytearray, *, most: int | None = None) -> str:
    """Decode a text file: by its byte order mark, else UTF-8, else Windows-1252.

    Args:
        data: The file.
        most: How many characters are kept; all if None. What comes after them is looked through in little memory.

    Raises:
        DecodeError: If it is blank, or holds NUL characters, as binary files do.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _decoded(data, "utf-16", "replace", most)
    try:
        return _decoded(data, "utf-8-sig", "strict", most)
    except UnicodeDecodeError:
        # Old notes are Windows-1252 or Latin-1; both share the letters that matter.
        return _decoded(data, "cp1252", "replace", most)


def first_line(text: str) -> str | None:
    """Return the first line that is not blank, stripped of white space and Markdown's heading marks."""
    for line in LINE.finditer(text):
        if stripped := line[0].strip().lstrip("#").strip():
            return stripped[:MAX_LINE_CHARACTERS]
    return None


def _decoded(data: bytes | bytearray, encoding: str, errors: str, most: int | None) -> str:
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    kept: list[str] = []
    count, is_blank = 0, True
    for start in range(0, len(data), PIECE_BYTES):
        stopping.check()
        piece = decoder.decode(data[start : start + PIECE_BYTES], final=start + PIECE_BYTES >= len(data))
        if "\x00" in piece:
            raise DecodeError("not a text: it holds NUL characters")
        is_blank = is_blank and (not piece or piece.isspace())
        if most is None or count < most:
            kept.append(piece if most is None else piece[: most - count])
            count += len(kept[-1])
    if is_blank:
        raise DecodeError("the text is empty")
    return "".join(kept)
