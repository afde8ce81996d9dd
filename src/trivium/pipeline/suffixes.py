"""Which files are taken, by the suffix of their name: what each is, and what has to be installed to decode it.

The one table for what is indexed and what is asked with. What a file holds is then told by its content: the suffix
decides whether it is looked at, and by which modality.
"""

import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

from trivium.pipeline.records import ItemKind

SUFFIXES: Mapping[str, ItemKind] = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"), "image"),
    **dict.fromkeys((".svg", ".heic", ".heif", ".avif"), "image"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"), "image"),
    **dict.fromkeys((".wav", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2"), "audio"),
    **dict.fromkeys((".aiff", ".aif", ".aifc", ".caf", ".au"), "audio"),
    **dict.fromkeys((".m4a", ".aac", ".wma"), "audio"),
    **dict.fromkeys((".txt", ".md", ".pdf", ".docx"), "text"),
    **dict.fromkeys((".mp4", ".m4v", ".webm", ".mkv", ".mov", ".avi", ".wmv", ".mpg", ".mpeg"), "video"),
    **dict.fromkeys((".mts", ".m2ts", ".ts", ".3gp"), "video"),
}


@dataclass(frozen=True, slots=True)
class Extra:
    """What brings a decoder that is not a part of every installation."""

    name: str  # of `trivium[name]`
    module: str


_VIDEO = Extra("video", "av")
_RAW = Extra("raw", "rawpy")
NEEDED: Mapping[str, Extra] = {
    **{suffix: _VIDEO for suffix, kind in SUFFIXES.items() if kind == "video"},
    **dict.fromkeys((".m4a", ".aac", ".wma"), _VIDEO),
    **dict.fromkeys((".heic", ".heif"), Extra("heif", "pillow_heif")),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"), _RAW),
    ".pdf": Extra("documents", "pypdfium2"),
    ".docx": Extra("documents", "docx"),
}


def suffix_of(name: str) -> str:
    """Return the suffix of a name or path as the table has it: `os.path.splitext`'s, at a fifth of its time."""
    stem, dot, ending = name.rpartition(".")
    if not dot or "/" in ending or not stem.rpartition("/")[2].strip("."):  # .profile has none
        return ""
    return f".{ending}".lower()


def kind_of_name(name: str) -> ItemKind | None:
    """Return what a file of this name is; None if it is of no kind that is indexed."""
    return SUFFIXES.get(suffix_of(name))


@functools.cache
def is_installed(module: str) -> bool:
    """Whether a library is there; looked up once."""
    return importlib.util.find_spec(module) is not None


def missing_extra(suffix: str) -> Extra | None:
    """Return what has to be installed before files of a suffix can be decoded, if something has."""
    extra = NEEDED.get(suffix)
    return None if extra is None or is_installed(extra.module) else extra


def why_passed(suffix: str) -> str:
    """Say why files of a suffix that are not taken are passed over."""
    extra = missing_extra(suffix)
    return "not a kind that is indexed" if extra is None else f"needs trivium[{extra.name}]"


def why_not(suffix: str) -> str | None:
    """Say why a file that was asked for by its name cannot be taken, by its suffix, and what to do; None if it can."""
    if suffix not in SUFFIXES:
        return f"not a kind of file that is indexed ({' '.join(SUFFIXES)})"
    extra = missing_extra(suffix)
    return None if extra is None else f"needs trivium[{extra.name}] (run pip install 'trivium[{extra.name}]')"
