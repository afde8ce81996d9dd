"""Text files to strings: encodings guessed conservatively, binary files refused."""

from trivium.encoders.base import DecodeError

MAX_LINE_CHARACTERS = 1000


def decode_text(data: bytes) -> str:
    """Decode a text file: by its byte order mark, else UTF-8, else Windows-1252.

    Raises:
        DecodeError: If it is blank, or holds NUL characters, as binary files do.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", errors="replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            # Old notes are Windows-1252 or Latin-1; both share the letters that matter.
            text = data.decode("cp1252", errors="replace")
    if "\x00" in text:
        raise DecodeError("not a text: it holds NUL characters")
    if not text.strip():
        raise DecodeError("the text is empty")
    return text


def first_line(text: str) -> str | None:
    """Return the first line that is not blank, stripped of white space and Markdown's heading marks."""
    for line in text.splitlines():
        if stripped := line.strip().lstrip("#").strip():
            return stripped[:MAX_LINE_CHARACTERS]
    return None
