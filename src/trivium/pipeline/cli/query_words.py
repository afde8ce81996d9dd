"""Queries as words: of a command line, which a shell has cut, and of a line that was typed at our own prompt.

    trivium search C "2:beach" "at night" -crowd --only image     each word is a text; '-' means less of it

At the prompt nobody has cut the line into words:

    a bird singing                   one text: words that follow one another belong together
    2:beach "at night" -crowd        three texts: a weight or a quote begins another
    image:~/blue.jpg -0.5:audio:"a train.ogg"
    a bird --only audio -k 3         the options of `trivium search`

argparse takes each word with a leading dash for an option, and no further words after an option. So both are rewritten
for it: each part of a query as ``--text=-crowd`` or ``--image=-dull.jpg``, each option with its value.
"""

import argparse
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from trivium.pipeline.cli.options import (
    Parser,
    UsageError,
    add_filter,
    add_json,
    add_min_relevance,
    add_plain,
    positive,
    require_values,
)
from trivium.pipeline.records import ITEM_KINDS
from trivium.pipeline.search.folding import FOLDS
from trivium.pipeline.search.query import WEIGHTED

PART_OPTIONS = tuple(f"--{kind}" for kind in ITEM_KINDS)
# Options of a query that take a value, and its one-letter options: other words with a leading dash are texts.
VALUE_OPTIONS = (
    *(*PART_OPTIONS, "--only", "--path", "--where", "--min-relevance", "--fold", "--html", "--explain-hits"),
    *("--space", "--device", "--precision", "--sandbox", "--max-megapixels", "-k"),
)
LETTERS, LINE_LETTERS = re.compile(r"-(h|k|k\d+)"), re.compile(r"-k(\d*)")
EXPLAIN, EXPLANATIONS = "--explain", "explanations"  # an option whose value may be left out, and what it then is
# A word with quotes anywhere in it: image:"two words.jpg". An apostrophe quotes only what begins and ends with one, so
# that a bird's nest needs no care.
WORD = re.compile(r"""(?: "(?:\\.|[^"\\])*" | (?<![^\s:=])'[^']*'(?!\S) | \\. | [^\s"\\] )+""", re.VERBOSE | re.DOTALL)
QUOTED = re.compile(
    r""" "(?P<double>(?:\\.|[^"\\])*)" | (?<![^\s:=])'(?P<single>[^']*)'(?!\S) | \\(?P<escaped>.) """, re.X
)
PART = re.compile(
    rf"(?P<weight>-|[+-]?(?:\d+(?:\.\d*)?|\.\d+):)?(?P<modality>{'|'.join(ITEM_KINDS)}):(?P<rest>.*)", re.S
)


@dataclass(frozen=True, slots=True)
class Word:
    """A word without its quotes; one that began with a quote is never an option."""

    text: str
    is_quoted: bool = False


def add_query(parser: argparse.ArgumentParser) -> None:
    """Let the user say what to look for, and how to show it."""
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="what to look for")
    for option, modality in zip(PART_OPTIONS, ITEM_KINDS, strict=True):
        metavar = "TEXT" if modality == "text" else "FILE"
        parser.add_argument(option, metavar=metavar, action="append", default=[], help=f"a query by {modality}")
    add_filter(parser)
    add_min_relevance(parser)
    parser.add_argument("-k", type=positive, default=10, help="how many hits (default 10)")
    parser.add_argument(
        "--fold",
        choices=FOLDS,
        default="same",
        help="what is shown as one hit: equal files (same, the default), pictures and videos that look the same too "
        "(near), nothing (none)",
    )
    add_json(parser, help="print one JSON object and nothing else")
    add_plain(parser)
    parser.add_argument("--html", metavar="FILE", help="also write a page that shows and plays the hits")
    parser.add_argument(
        EXPLAIN,
        metavar="FOLDER",
        nargs="?",
        const=EXPLANATIONS,
        help="tell which words, seconds and regions held up the score of the first hits; pictures of the regions are "
        f"written to FOLDER (default ./{EXPLANATIONS})",
    )
    parser.add_argument(
        "--explain-hits", type=positive, metavar="N", default=5, help="how many hits to explain (default 5)"
    )


def name_texts(words: Sequence[str]) -> list[str]:
    """Return the words of `trivium search`, all but the first that is no option as parts of a query.

    The word after ``--explain`` is its folder, unless it is all there is to look for.
    """
    named: list[str] = []
    folder: int | None = None  # the place of what is a folder if something else is looked for
    has_collection = False
    for word in _with_values(map(Word, words), LETTERS):
        if isinstance(word, list):
            named += word if word != ["--"] else []
        elif not has_collection:
            named.append(word.text)
            has_collection = True
        else:
            if named[-1] == EXPLAIN and not word.is_quoted and not word.text.startswith("-"):
                folder = len(named)
            named.append(f"--text={word.text}")
    if folder is not None and sum(map(_is_part, named)) > 1:
        named[folder - 1 : folder + 1] = [named[folder].replace("--text", EXPLAIN, 1)]
    return [f"{EXPLAIN}={EXPLANATIONS}" if word == EXPLAIN else word for word in named]


def parse_line(line: str) -> argparse.Namespace:
    """Read a query with its options, as `trivium search` has them.

    Raises:
        UsageError: If it is none.
    """
    parser = _LineParser(add_help=False, allow_abbrev=False)
    add_query(parser)
    parser.set_defaults(k=None)
    options = parser.parse_args(_name_parts(split_words(line)))
    require_values(options)
    for name in ("image", "audio", "video"):
        setattr(options, name, [_with_home(file) for file in getattr(options, name)])
    return options


def split_words(line: str) -> list[Word]:
    """Cut a line into words.

    Raises:
        UsageError: If a quote does not end.
    """
    words: list[Word] = []
    place = 0
    while rest := line[place:].lstrip():
        place = len(line) - len(rest)
        match = WORD.match(line, place)
        if match is None or (match.end() < len(line) and not line[match.end()].isspace()):
            raise UsageError(f'a quote or a backslash does not end: {rest} (\\" is a quote that quotes nothing)')
        text = _unquoted(match[0])
        words.append(Word(text, is_quoted=match[0][0] in "\"'" and match[0] != text))
        place = match.end()
    return words


class _LineParser(Parser):
    """Raises where argparse would end the program."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _name_parts(words: Iterable[Word]) -> list[str]:
    """Return the words of a typed line, what is looked for as parts of a query.

    The word after ``--explain`` is its folder where something to look for came before.
    """
    named: list[str] = []
    is_open = False  # the last one is a text that further words belong to
    remaining = iter(words)
    for word in _with_values(remaining, LINE_LETTERS):
        is_open, was_open = False, is_open
        if isinstance(word, list):
            if word == ["--"]:
                raise UsageError("'--' means nothing here: put a text that begins with a dash in quotes")
            named += word
            continue
        part = None if word.is_quoted else PART.fullmatch(word.text)
        begins = part is not None or word.is_quoted or _begins_part(word.text)
        if named and named[-1] == EXPLAIN and any(map(_is_part, named)) and (word.is_quoted or not begins):
            named[-1] = f"{EXPLAIN}={word.text}"
        elif part is not None:
            rest = part["rest"] or next(remaining, Word("")).text  # `image: red.png` is one part too
            named.append(f"--{part['modality']}={part['weight'] or ''}{rest}")
        elif was_open and not begins:
            named[-1] += f" {word.text}"
            is_open = True
        else:
            named.append(f"--text={word.text}")
            is_open = not word.is_quoted
    if empty := next((part for part in named if part.endswith("=--")), None):
        raise UsageError(f"'{empty}': '--' is nothing to look for, and no file")
    return [f"{EXPLAIN}={EXPLANATIONS}" if word == EXPLAIN else word for word in named]


def _with_values(words: Iterable[Word], letters: re.Pattern[str]) -> Iterator[Word | list[str]]:
    """Yield options as lists, each with its value, and all else as the words they are; all after ``--`` is quoted."""
    remaining = iter(words)
    for word in remaining:
        if word.is_quoted or not (word.text.startswith("--") or letters.fullmatch(word.text)):
            yield word
        elif word.text == "--":
            yield [word.text]
            yield from (Word(each.text, is_quoted=True) for each in remaining)
        elif word.text in VALUE_OPTIONS and (value := next(remaining, None)) is not None:
            yield [word.text, value.text] if word.text == "-k" else [f"{word.text}={value.text}"]
        else:
            yield [word.text]


def _is_part(argument: str) -> bool:
    return argument.startswith(tuple(f"{option}=" for option in PART_OPTIONS))


def _begins_part(word: str) -> bool:
    """Whether a word within a text begins another; 10:30 and 16:9 do not, though they look like weights."""
    weighted = WEIGHTED.fullmatch(word)
    return word.startswith("-") or (weighted is not None and not weighted["rest"][:1].isdigit())


def _unquoted(word: str) -> str:
    def inside(match: re.Match[str]) -> str:
        if match["double"] is not None:
            return re.sub(r'\\(["\\])', r"\1", match["double"])
        return str(match["single"] if match["escaped"] is None else match["escaped"])

    return QUOTED.sub(inside, word)


def _with_home(file: str) -> str:
    """Write out ~, which a shell would do; before it there may be a weight."""
    match = WEIGHTED.fullmatch(file)
    rest = match["rest"] if match else file[1:] if file.startswith("-") else file
    return file[: len(file) - len(rest)] + os.path.expanduser(rest)
