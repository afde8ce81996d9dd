"""One item or several: what a caller may give where several are taken, and what is refused there.

To Python a text is a sequence of characters: walked through, ``"/a"`` names the folder ``/`` and ``"cat"`` three texts.
So whatever takes several asks here, and takes one for what it is.
"""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

OneItem: TypeAlias = "str | bytes | os.PathLike[str] | Image | tuple[NDArray[Any], float]"
OnePath: TypeAlias = str | os.PathLike[str]
Paths: TypeAlias = OnePath | Iterable[OnePath]


def is_one(given: Any) -> bool:
    """Whether this is one item: a text, a path, bytes, a picture (h, w, 3), a sound (waveform, rate)."""
    if isinstance(given, str | bytes | bytearray | os.PathLike) or not isinstance(given, Iterable):
        return True
    if isinstance(given, np.ndarray):
        return given.ndim == 0 or (given.ndim == 3 and given.dtype.kind in "uif")
    return (
        isinstance(given, tuple)
        and len(given) == 2
        and isinstance(given[0], np.ndarray)
        and isinstance(given[1], int | float | np.number)
    )


def listed(given: Any, name: str) -> list[Any]:
    """Return what was given as a list: one item alone in it, of several all.

    Args:
        given: One item (see `is_one`), or any iterable of items.
        name: Of the parameter, for the message.

    Raises:
        TypeError: If it is None, or a mapping, of which nobody can tell whether its keys or its values are meant.
    """
    if given is None or isinstance(given, Mapping):
        raise TypeError(f"{name} must be one item or an iterable of items, got {_kind(given)}")
    return [given] if is_one(given) else list(given)


def path_of(given: str | bytes | os.PathLike[str] | os.PathLike[bytes], name: str) -> str:
    """Return a path as text, checked: an empty one would stand for the current folder where nobody meant it.

    Raises:
        TypeError: If it is no path.
        ValueError: If it is empty.
    """
    if not isinstance(given, str | bytes | os.PathLike):
        raise TypeError(f"{name} must be a path (str or os.PathLike), got {_kind(given)}")
    path = os.fsdecode(given)
    if not path:
        raise ValueError(f"{name} is an empty path: name a file or a folder, '.' for the current one")
    return path


def paths_of(given: Paths, name: str) -> list[str]:
    """Return one path or several as a list of texts; see `path_of`.

    Raises:
        TypeError: If one is no path.
        ValueError: If one is empty.
    """
    return [path_of(path, name) for path in listed(given, name)]


def _kind(given: object) -> str:
    return "None" if given is None else f"{type(given).__name__}: {given!r:.80}"
