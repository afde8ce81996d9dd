"""Tux Paint's stamps: drawings and photos, each with a caption beside it, many with a sound."""

import shutil
from pathlib import Path

from base.table import Row, label_of, split_of

PACKAGE = "tuxpaint-stamps-default"
ROOT = "usr/share/tuxpaint/stamps"
LICENCE = "GPL-2"
PICTURES = (".png", ".svg")
SOUNDS = (".ogg", ".wav")


def stamps(unpacked: Path, folder: Path, *, root: str = ROOT) -> list[Row]:
    """Copy the stamps into `media/PACKAGE` and return a row for each; one in five, by its name, is for tests.

    The spoken descriptions (`*_desc*`) are left out.
    """
    source = unpacked / root
    target = folder / "media" / PACKAGE
    rows = []
    for caption in sorted(source.rglob("*.txt")):
        text = caption.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0].strip()
        name = caption.relative_to(source).with_suffix("").as_posix()
        image, audio = (_copied(caption, suffixes, source, target) for suffixes in (PICTURES, SOUNDS))
        if text and (image or audio):
            row = Row(
                text=text,
                image=f"media/{PACKAGE}/{image}" if image else "",
                audio=f"media/{PACKAGE}/{audio}" if audio else "",
                label=label_of(text),
                source=PACKAGE,
                split=split_of(name),
            )
            rows.append(row)
    return rows


def is_wanted(name: str) -> bool:
    """Tell which files of the package to unpack."""
    return name.startswith(ROOT) and "_desc" not in name and Path(name).suffix in (".txt", *PICTURES, *SOUNDS)


def _copied(caption: Path, suffixes: tuple[str, ...], source: Path, target: Path) -> str:
    for suffix in suffixes:
        found = caption.with_suffix(suffix)
        if found.is_file():
            place = target / found.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, place)
            return found.relative_to(source).as_posix()
    return ""
