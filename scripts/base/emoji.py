"""Emoji: Noto's drawings, with the names and keywords that the Unicode Consortium gives them."""

import xml.etree.ElementTree as ElementTree  # nosec B405
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from base.table import Row, label_of

FONT_PACKAGE = "fonts-noto-color-emoji"
NAMES_PACKAGE = "unicode-cldr-core"
LICENCE = "OFL-1.1 (drawings), Unicode-DFS-2016 (names)"
FONT = "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
NAMES = "usr/share/unicode/cldr/common"
# The font holds bitmaps of one size.
STRIKE_PIXELS = 109
CANVAS_PIXELS = 136
# Of the same drawing in five skins and several hairs, one is enough.
SKINS = {chr(code) for code in range(0x1F3FB, 0x1F400)}
MAX_KEYWORDS = 8


def emoji(font_root: Path, names_root: Path, folder: Path) -> list[Row]:
    """Render every emoji that the font has to `media/FONT_PACKAGE`; two rows each, its name and its keywords."""
    font = ImageFont.truetype(str(font_root / FONT), STRIKE_PIXELS)
    target = folder / "media" / FONT_PACKAGE
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for character, name, keywords in _named(names_root / NAMES):
        if character.isascii() or SKINS & set(character) or (picture := _rendered(character, font)) is None:
            continue
        stem = "-".join(f"{ord(part):x}" for part in character)
        picture.save(target / f"{stem}.png")
        texts = [name]
        if others := [word for word in keywords if word not in name][:MAX_KEYWORDS]:
            texts.append(", ".join([name, *others]))
        image = f"media/{FONT_PACKAGE}/{stem}.png"
        rows += [Row(text=text, image=image, label=label_of(name), source=FONT_PACKAGE) for text in texts]
    return rows


def is_wanted_font(name: str) -> bool:
    """Tell which files of the font's package to unpack."""
    return name == FONT


def is_wanted_name(name: str) -> bool:
    """Tell which files of the names' package to unpack."""
    return name in {f"{NAMES}/{kind}/en.xml" for kind in ("annotations", "annotationsDerived")}


def _named(root: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each character or sequence with its short name and its keywords."""
    for kind in ("annotations", "annotationsDerived"):
        names: dict[str, str] = {}
        keywords: dict[str, list[str]] = {}
        for element in ElementTree.parse(root / kind / "en.xml").iter("annotation"):  # nosec B314
            text = (element.text or "").strip()
            if element.get("type") == "tts":
                names[element.attrib["cp"]] = text.replace("flag: ", "flag of ")
            else:
                keywords[element.attrib["cp"]] = [word.strip() for word in text.split("|")]
        for character, name in names.items():
            yield character, name, keywords.get(character, [])


def _rendered(character: str, font: ImageFont.FreeTypeFont) -> Image.Image | None:
    """Return an emoji over white; nothing if the font lacks it, or draws a sequence's parts side by side."""
    left, _, right, _ = font.getbbox(character)
    if not 0 < right - left <= CANVAS_PIXELS:
        return None
    picture = Image.new("RGBA", (CANVAS_PIXELS, CANVAS_PIXELS), "white")
    ImageDraw.Draw(picture).text((0, 0), character, font=font, embedded_color=True)
    rgb = picture.convert("RGB")
    extremes = rgb.getextrema()
    return None if all(low == 255 for low, _ in extremes) else rgb  # type: ignore[misc]
