"""The Open Clip Art Library: drawings with a title, sometimes a description, and keywords in their metadata."""

import re
import xml.etree.ElementTree as ElementTree  # nosec B405
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from base.drawings import place_drawing
from base.names import words_of
from base.table import Row, label_of

PACKAGE = "openclipart-svg"
ROOT = "usr/share/openclipart/svg"
LICENCE = "public domain"
DC = "{http://purl.org/dc/elements/1.1/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
# Series of geometry, buttons, playing cards and icons, whose titles name the series and not what is to be seen.
LEFT_OUT = re.compile(
    r"^(shapes|special|logos|unsorted/duplicates|computer/(icons|buttons)|recreation/games/cards"
    r"|signs_and_symbols/(led|map_symbols)|transportation/aiga-symbols)/"
)
SAYS_NOTHING = re.compile(
    r"clipart by|part of the|theme|aiga|icon collection|road ?signs|unsorted|untitled|@|http", re.I
)
NO_KEYWORDS = {"clip art", "clipart", "unsorted", "hash", "theme", "special", "image", "media", "public domain", "svg"}
MAX_KEYWORDS = 8
MAX_WORDS = 14
# A title that more drawings than this have names a series.
MAX_SAME_TITLE = 12
# Of a caption's words, what WordNet must know for it to be English.
MIN_KNOWN = 0.6
SMALL_WORDS = frozenset("a an and at by for from in into is it of on or over the this to under up with without".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What a drawing's metadata say."""

    name: str
    title: str
    description: str
    keywords: tuple[str, ...]
    authors: frozenset[str]  # words


def clipart(unpacked: Path, folder: Path, *, lexicon: set[str]) -> list[Row]:
    """Take the drawings that say in English what they show.

    Returns:
        Rows: one for each drawing's title, description and keywords, as far as it has them.
    """
    source = unpacked / ROOT
    read = [_read(path, path.relative_to(source).as_posix()) for path in sorted(source.rglob("*.svg"))]
    drawings = [drawing for drawing in read if drawing is not None and not LEFT_OUT.match(drawing.name)]
    titles = Counter(drawing.title.lower() for drawing in drawings)
    rows = []
    for drawing in drawings:
        series = titles[drawing.title.lower()] > MAX_SAME_TITLE
        texts = _texts(drawing, series=series, lexicon=lexicon)
        if not texts:
            continue
        placed = place_drawing((source / drawing.name).read_bytes(), folder / "media" / PACKAGE / drawing.name)
        if placed is not None:
            image, label = placed.relative_to(folder).as_posix(), label_of(texts[0])
            rows += [Row(text=text, image=image, label=label, source=PACKAGE) for text in texts]
    return rows


def is_wanted(name: str) -> bool:
    """Tell which files of the package to unpack."""
    return name.startswith(ROOT) and name.endswith(".svg")


def is_english(text: str, lexicon: set[str]) -> bool:
    """Tell whether enough of a caption's words are in WordNet, and one of them says something."""
    words = re.findall(r"[a-z]+", text.lower())
    content = [word for word in words if word not in SMALL_WORDS]
    known = [word for word in content if word in lexicon or word.removesuffix("s") in lexicon]
    return any(len(word) > 2 for word in known) and len(known) >= MIN_KNOWN * len(content)


def _read(path: Path, name: str) -> Drawing | None:
    try:  # the parser fetches nothing from outside
        root = ElementTree.fromstring(path.read_bytes())  # nosec B314
    except ElementTree.ParseError:
        return None
    work = next(root.iter(f"{DC}title"), None)
    title = (work.text or "") if work is not None else ""
    description = next((element.text or "" for element in root.iter(f"{DC}description")), "")
    keywords = tuple(
        element.text or "" for subject in root.iter(f"{DC}subject") for element in subject.iter(f"{RDF}li")
    )
    agents = [element.text or "" for element in root.iter(f"{DC}title") if element is not work]
    authors = frozenset(word for agent in agents for word in re.findall(r"[a-z]+", agent.lower()))
    return Drawing(
        name=name,
        title=" ".join(title.split()),
        description=" ".join(description.split()),
        keywords=keywords,
        authors=authors,
    )


def _texts(drawing: Drawing, *, series: bool, lexicon: set[str]) -> list[str]:
    """Return captions of a drawing, the best first: its title, or else its name; its description; its keywords."""
    title = _cleaned(drawing.title)
    if series or not title or SAYS_NOTHING.search(drawing.title):
        words = words_of(Path(drawing.name).stem).split()
        title = " ".join(word for word in words if word not in drawing.authors)
    found = [title, _cleaned(drawing.description)]
    texts = [text for text in found if len(text.split()) <= MAX_WORDS and is_english(text, lexicon)]
    folders = {folder.replace("_", " ") for folder in Path(drawing.name).parts[:-1]}
    texts = [text for text in texts if not SAYS_NOTHING.search(text) and text.lower() not in folders]
    if texts and (keywords := _keywords(drawing, lexicon)):
        texts.append(", ".join(dict.fromkeys([texts[0].lower(), *keywords])))
    unlike: dict[str, str] = {}
    for text in texts:
        unlike.setdefault(label_of(text), text)
    return list(unlike.values())


def _cleaned(text: str) -> str:
    """Return a title without numbers, underscores and what stands in brackets."""
    text = re.sub(r"\([^)]*\)", " ", text.replace("_", " "))
    return " ".join(re.sub(r"[#\d]+", " ", text).split()).strip(" -.:,")


def _keywords(drawing: Drawing, lexicon: set[str]) -> list[str]:
    folders = Path(drawing.name).parent.parts
    words = [word.replace("_", " ").strip().lower() for word in (*drawing.keywords, *reversed(folders))]
    known = [word for word in words if word not in NO_KEYWORDS and "hash" not in word and is_english(word, lexicon)]
    return list(dict.fromkeys(known))[:MAX_KEYWORDS]
