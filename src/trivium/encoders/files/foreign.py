"""Files of folders that a stranger may have made: spaces and models. Bounded, regular, and inside their folder.

A folder from outside may hold anything: links to other places, pipes, files of any size, JSON that no parser likes.
What is read through here is a regular file that lies in the folder, no larger than its reader can use, and every fault
is a `ForeignFileError` with the path, which the readers of spaces and models tell as their own.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from trivium.encoders.files.reading import NotRegularError, open_regular

MAX_JSON_BYTES = 16 * 1024 * 1024
MAX_DIGITS = 40  # of a whole number: transformers write 10^30 for "no limit"
MAX_DEPTH = 64  # of lists and objects in one another: what we write has eight


class ForeignFileError(ValueError):
    """A file that is not as it must be; the message names it."""


def is_plain_name(name: object) -> TypeGuard[str]:
    """Whether something is the name of a file in a folder, and of nothing outside: no path, no dots alone, no NUL."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and not {"/", "\\", "\0"} & set(name)
        and Path(name).name == name
        and name.isprintable()
    )


def open_foreign(path: Path, *, max_bytes: int) -> BufferedReader:
    """Open a regular file to read it. A link is followed only to where it stays in the file's own folder.

    Args:
        path: The file, directly in the folder that it belongs to.
        max_bytes: Larger ones are refused.

    Raises:
        ForeignFileError: If it is not there, leads out of its folder, is no regular file, or too large.
    """
    try:
        folder, real = os.path.realpath(path.parent), os.path.realpath(path, strict=True)
        if not Path(real).is_relative_to(folder):
            raise ForeignFileError(f"{path} is a link that leads out of its folder: copy the file there instead")
        file = open_regular(real)  # what a link led to may be another thing by now
    except ForeignFileError:
        raise
    except NotRegularError as error:
        raise ForeignFileError(f"{path} is not a regular file") from error
    except OSError as error:
        raise ForeignFileError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # NUL in the name
        raise ForeignFileError(f"{str(path)!r} is no name of a file") from error
    size = os.fstat(file.fileno()).st_size
    if size > max_bytes:
        file.close()
        raise ForeignFileError(f"{path} is too large: it has {size:,} bytes, at most {max_bytes:,} are read")
    return file


def read_foreign(path: Path, *, max_bytes: int) -> bytes:
    """Read a file whole; see `open_foreign`.

    Raises:
        ForeignFileError: Also if it grows or shrinks meanwhile.
    """
    with open_foreign(path, max_bytes=max_bytes) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            data = file.read(size + 1)
        except OSError as error:
            raise ForeignFileError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) != size:
        raise ForeignFileError(f"{path} changed while it was being read")
    return data


def read_foreign_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES, constants: bool = False) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Args:
        path: The file.
        max_bytes: Larger ones are refused.
        constants: Take NaN and infinity, which Python writes and JSON has not.

    Raises:
        ForeignFileError: If it does not; a key that is there twice, NaN, infinity and endless numbers are not
            taken either, since what they mean is anybody's guess.
    """
    return foreign_json(read_foreign(path, max_bytes=max_bytes), path, constants=constants)


def foreign_json(data: bytes, path: object, *, constants: bool = False) -> dict[str, Any]:
    """Read the bytes of a JSON object; see `read_foreign_json`. The path is for messages."""
    try:
        raw = (_DECODER_OF_PYTHON if constants else _DECODER).decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ForeignFileError(f"{path} is not JSON: it is not UTF-8 (byte {error.start:,})") from error
    except RecursionError as error:
        raise ForeignFileError(f"{path} is nested too deeply") from error
    except ValueError as error:
        raise ForeignFileError(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ForeignFileError(f"{path} must hold an object, it holds {shown(raw)}")
    if _is_deep(raw):
        raise ForeignFileError(f"{path} is nested too deeply: more than {MAX_DEPTH} lists and objects in one another")
    return raw


def shown(value: object) -> str:
    """Return a value from a file as a message may have it: short, on one line, whatever it holds."""
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text[:80])
    return text if len(text) <= 60 else f"{text[:60]}…"


def _is_deep(raw: Any) -> bool:
    level = [raw]
    for _ in range(MAX_DEPTH):
        entries = (entry for each in level for entry in (each.values() if isinstance(each, dict) else each))
        level = [entry for entry in entries if isinstance(entry, dict | list)]
        if not level:
            return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ForeignFileError(f"the key {shown(repeated)} is there twice")
    return found


def _refused(name: str) -> NoReturn:
    raise ForeignFileError(f"{name} is not a number that JSON has")


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ForeignFileError(f"the number {digits[:40]} is too large")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ForeignFileError(f"the number {digits[:40]} is too large")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refused, parse_int=_whole, parse_float=_finite)
_DECODER_OF_PYTHON = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole, parse_float=_finite)
