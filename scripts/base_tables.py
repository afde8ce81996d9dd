"""Make the data that `trivium-base` is trained on: fetch free media from Debian, write tables of what belongs together.

scripts/base/README.md tells what is made. A package that is there from an earlier run is not fetched again.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from base import clipart, emoji, pairs, recipes, soundfont, stamps, wordnet
from base.copies import HeldOut
from base.licences import Licence, write_licences
from base.table import Contents, Row, files_of, write_table
from debian import FetchError, download, unpack, version

OUTPUT = Path("build/base")
IMAGENET = Path(__file__).parents[1] / "src/trivium/spaces/trivium-labels/imagenet.json"
Wanted = Callable[[str], bool]


class Tables:
    """Writes tables beside their media, each package's licence noted."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._contents = Contents(output)
        self._debs: dict[str, Path] = {}
        self.licences: list[Licence] = []
        self.rows: list[Row] = []  # of all tables
        self._held_out: HeldOut | None = None

    def fetch(self, packages: Sequence[str]) -> None:
        """Download packages that are not here yet."""
        self._debs = download(packages, self._output / "packages")

    def unpacked(self, package: str, wanted: Wanted) -> Path:
        """Unpack what is wanted of a package, and its copyright file, and return the folder."""
        folder = self._output / "unpacked" / package
        if not folder.is_dir():
            partial = folder.with_name(f"{folder.name}.partial")
            unpack(self._debs[package], partial, wanted=lambda name: wanted(name) or name.endswith("/copyright"))
            partial.rename(folder)
        return folder

    def write(self, name: str, found: Sequence[tuple[str, str, Sequence[Row]]]) -> None:
        """Write one table out of packages, each with its licence and its rows."""
        table = []
        for package, licence, rows in found:
            kept = list(self._contents.without_repeats(rows))
            if self._held_out is not None:
                kept = self._held_out.without_copies(kept)
            source = rows[0].source if rows else package
            self.note(package, licence, source=source, files=len(files_of(kept)), rows=len(kept))
            self._drop_unused(source, kept)
            table += kept
            self.rows += kept
            print(_told(source, kept, len(rows)), flush=True)
        write_table(self._output / f"{name}.csv", table)

    def note(self, package: str, licence: str, *, source: str, files: int, rows: int) -> None:
        """Note a package that was used."""
        stated = version(self._debs[package])
        self.licences.append(
            Licence(source=source, package=package, version=stated, licence=licence, files=files, rows=rows)
        )

    def hold_out(self) -> None:
        """Let nothing that is written from now on have copies of the pictures that are in test rows so far."""
        self._held_out = HeldOut([row for row in self.rows if row.split == "test"], self._output)

    def _drop_unused(self, source: str, kept: Sequence[Row]) -> None:
        used = files_of(kept)
        for path in (self._output / "media" / source).rglob("*"):
            if path.is_file() and path.relative_to(self._output).as_posix() not in used:
                path.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"where everything goes (default: {OUTPUT})")
    options = parser.parse_args()
    started = time.perf_counter()
    try:
        make_tables(options.output)
    except (FetchError, subprocess.CalledProcessError) as error:
        sys.exit(f"the data of trivium-base cannot be made: {error}")
    print(f"{options.output}: made in {time.perf_counter() - started:.0f} s")
    return 0


def make_tables(output: Path) -> None:
    """Make every table, those without which others cannot be made first."""
    tables = Tables(output)
    taken = recipes.read_recipes()
    tables.fetch(
        [
            *(stamps.PACKAGE, clipart.PACKAGE, soundfont.PACKAGE, wordnet.PACKAGE),
            *(emoji.FONT_PACKAGE, emoji.NAMES_PACKAGE),
            *(recipe.package for recipe in taken),
        ]
    )
    words = tables.unpacked(wordnet.PACKAGE, lambda name: name.startswith(wordnet.ROOT)) / wordnet.ROOT
    nouns, counts = wordnet.read_nouns(words), wordnet.read_counts(words)
    rows = wordnet.write_texts(output / "imagenet_texts.csv", wordnet.imagenet_texts(nouns, counts, IMAGENET))
    rows += wordnet.write_texts(output / "wordnet_texts.csv", wordnet.everyday_texts(nouns, counts))
    tables.note(wordnet.PACKAGE, wordnet.LICENCE, source=wordnet.PACKAGE, files=0, rows=rows)

    folder = tables.unpacked(stamps.PACKAGE, stamps.is_wanted)
    tables.write("stamps", [(stamps.PACKAGE, stamps.LICENCE, stamps.stamps(folder, output))])
    tables.hold_out()
    found = []
    for recipe in taken:
        folder = tables.unpacked(recipe.package, _below(recipe.root))
        found.append((recipe.package, recipe.licence, recipes.media_of(recipe, folder, output)))
    tables.write("media", found)
    folder = tables.unpacked(soundfont.PACKAGE, soundfont.is_wanted)
    tables.write("instruments", [(soundfont.PACKAGE, soundfont.LICENCE, soundfont.instruments(folder, output))])
    font = tables.unpacked(emoji.FONT_PACKAGE, emoji.is_wanted_font)
    names = tables.unpacked(emoji.NAMES_PACKAGE, emoji.is_wanted_name)
    tables.write("emoji", [(emoji.FONT_PACKAGE, emoji.LICENCE, emoji.emoji(font, names, output))])
    folder = tables.unpacked(clipart.PACKAGE, clipart.is_wanted)
    drawings = clipart.clipart(folder, output, lexicon=wordnet.read_lexicon(words))
    tables.write("clipart", [(clipart.PACKAGE, clipart.LICENCE, drawings)])
    paired = pairs.pairs(tables.rows)
    write_table(output / "pairs.csv", paired)
    print(_told("pairs", paired, len(paired)))
    write_licences(output, tables.licences)


def _below(root: str) -> Wanted:
    return lambda name: name == root or name.startswith(f"{root}/")


def _told(source: str, kept: Sequence[Row], found: int) -> str:
    lengths = [len(row.text.split()) for row in kept] or [0]
    pictures, sounds = (
        {path for path in paths if path} for paths in ([r.image for r in kept], [r.audio for r in kept])
    )
    return (
        f"{source}: {len(kept):,} rows of {found:,}, {len(pictures):,} pictures, {len(sounds):,} sounds, "
        f"{len({row.label for row in kept}):,} labels, median caption {statistics.median(lengths):g} words"
    )


if __name__ == "__main__":
    sys.exit(main())
