"""Pictures and sounds of packages, with the captions that `media.toml` gives their names."""

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from base.archives import is_archive, members
from base.names import words_of
from base.sounds import is_heard
from base.table import Row, label_of, without_crowds

RECIPES = Path(__file__).parent / "media.toml"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".svg")
SOUNDS = (".ogg", ".oga", ".wav", ".flac", ".mp3", ".aiff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to take of a package, and what to say about it."""

    source: str
    package: str
    licence: str
    root: str  # a folder, an archive, or a folder of archives
    captions: dict[str, str]  # pattern -> caption
    has_pictures: bool  # else only sounds are taken, since the patterns were written for those

    def caption(self, name: str) -> str:
        """Return what a file below the root shows; empty if it is not to be used."""
        for pattern, caption in self.captions.items():
            if fnmatchcase(name.lower(), pattern.lower()):
                return caption.replace("{}", words_of(PurePosixPath(name).stem))
        return ""


def read_recipes(path: Path = RECIPES) -> list[Recipe]:
    """Read all recipes.

    Raises:
        ValueError: If a recipe lacks something; the message names it.
    """
    recipes = []
    for source, told in tomllib.loads(path.read_text(encoding="utf-8")).items():
        try:
            recipe = Recipe(
                source=source,
                package=told.get("package", source),
                licence=told["licence"],
                root=told["from"],
                captions=told["captions"],
                has_pictures=told.get("pictures", False),
            )
        except KeyError as error:
            raise ValueError(f"{path}: [{source}] has no {error}") from None
        recipes.append(recipe)
    return recipes


def media_of(recipe: Recipe, unpacked: Path, folder: Path) -> list[Row]:
    """Write the files that a recipe has captions for into a folder of their own, and return their rows.

    Args:
        recipe: What to take.
        unpacked: The package's files.
        folder: Where the tables will be; the files go to `media/SOURCE` below it.
    """
    suffixes = SOUNDS + (PICTURES if recipe.has_pictures else ())
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, content in _files(unpacked / recipe.root):
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in suffixes or not (caption := recipe.caption(name)):
            continue
        if suffix in SOUNDS and not is_heard(content):
            continue
        place = PurePosixPath("media", recipe.source, _safe(name))
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)
        groups[str(place.with_suffix("")), caption].append(str(place))
    rows = []
    for (_, caption), places in sorted(groups.items()):
        pictures = [place for place in sorted(places) if place.lower().endswith(PICTURES)]
        sounds = [place for place in sorted(places) if place.lower().endswith(SOUNDS)]
        rows += [
            Row(text=caption, image=image, audio=audio, label=label_of(caption), source=recipe.source)
            for image in pictures or [""]
            for audio in sounds or [""]
        ]
    return without_crowds(rows)


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    if root.is_file():
        yield from members(root)
        return
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder or archive in the package; its layout has changed")
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        if is_archive(path):
            yield from members(path)
        else:
            yield path.relative_to(root).as_posix(), path.read_bytes()


def _safe(name: str) -> str:
    """Return a name that is a path below a folder, whatever an archive says."""
    parts: Iterable[str] = (part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".."))
    return "/".join(parts)
