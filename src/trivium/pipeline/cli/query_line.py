"""Queries as they are typed at a prompt, where no shell has cut the line into words.

a bird singing                   one text: words that follow one another belong together
2:beach "at night" -crowd        three texts: a weight or a quote begins another; '-' means less of it
image:~/blue.jpg -0.5:audio:"a train.ogg"
a bird --only audio -k 3         the options of `trivium search`
"""

import argparse
import os
import re
from collections.abc import Sequence
from typing import NoReturn

from trivium.encoders.base import MODALITIES
from trivium.pipeline.cli.main import EXPLAIN, EXPLANATIONS, PART_OPTIONS, VALUE_OPTIONS, add_query
from trivium.pipeline.cli.options import UsageError
from trivium.pipeline.search.query import WEIGHTED

# A word with quotes anywhere in it: image:"two words.jpg". An apostrophe quotes only what begins and ends with one, so
# that a bird's nest needs no care.
WORD = re.compile(r"""(?: "(?:\\.|[^"\\])*" | (?<![^\s:=])'[^']*'(?!\S) | \\. | [^\s"\\] )+""", re.VERBOSE | re.DOTALL)
QUOTED = re.compile(
    r""" "(?P<double>(?:\\.|[^"\\])*)" | (?<![^\s:=])'(?P<single>[^']*)'(?!\S) | \\(?P<escaped>.) """, re.X
)
PART = re.compile(
    rf"(?P<weight>-|[+-]?(?:\d+(?:\.\d*)?|\.\d+):)?(?P<modality>{'|'.join(MODALITIES)}):(?P<rest>.*)", re.S
)
SHORT_OPTION = re.compile(r"-k(\d*)")


def parse_line(line: str) -> argparse.Namespace:
    """Read a query with its options, as `trivium search` has them.

    Raises:
        UsageError: If it is none.
    """
    parser = _LineParser(add_help=False, allow_abbrev=False)
    add_query(parser)
    parser.set_defaults(k=None)
    options = parser.parse_args(_arguments(split_words(line)))
    for name in ("image", "audio"):
        setattr(options, name, [_with_home(file) for file in getattr(options, name)])
    return options


def split_words(line: str) -> list[tuple[str, bool]]:
    """Cut a line into words.

    Returns:
        Each word without its quotes, and whether it began with one.

    Raises:
        UsageError: If a quote does not end.
    """
    words: list[tuple[str, bool]] = []
    place = 0
    while rest := line[place:].lstrip():
        place = len(line) - len(rest)
        match = WORD.match(line, place)
        if match is None or (match.end() < len(line) and not line[match.end()].isspace()):
            raise UsageError(f'a quote or a backslash does not end: {rest} (\\" is a quote that quotes nothing)')
        words.append((_unquoted(match[0]), match[0][0] in "\"'" and match[0] != _unquoted(match[0])))
        place = match.end()
    return words


class _LineParser(argparse.ArgumentParser):
    """Raises where argparse would end the program."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _arguments(words: Sequence[tuple[str, bool]]) -> list[str]:
    """Name every part by its option: argparse takes a leading dash for one, and has texts only where it likes."""
    named: list[str] = []
    is_open = False  # the last one is a text that further words belong to
    may_be_folder = False  # the last one is an option whose value may be left out
    remaining = iter(words)
    for word, is_quoted in remaining:
        is_open, was_open = False, is_open
        may_be_folder, was_explain = False, may_be_folder
        if word == "--" and not is_quoted:
            raise UsageError("'--' means nothing here: put a text that begins with a dash in quotes")
        if not is_quoted and word == EXPLAIN:
            named.append(f"{EXPLAIN}={EXPLANATIONS}")
            may_be_folder = any(part.startswith(PART_OPTIONS) for part in named)
        elif was_explain and (is_quoted or not (PART.fullmatch(word) or _begins_part(word))):
            named[-1] = f"{EXPLAIN}={word}"
        elif not is_quoted and (word.startswith("--") or SHORT_OPTION.fullmatch(word)):
            named.append(word)
            if word in VALUE_OPTIONS and (value := next(remaining, None)) is not None:
                named[-1:] = [word, value[0]] if word == "-k" else [f"{word}={value[0]}"]
        elif not is_quoted and (part := PART.fullmatch(word)):
            value = (part["rest"], False) if part["rest"] else next(remaining, ("", False))
            named.append(f"--{part['modality']}={part['weight'] or ''}{value[0]}")
        elif was_open and not is_quoted and not _begins_part(word):
            named[-1] += f" {word}"
            is_open = True
        else:
            named.append(f"--text={word}")
            is_open = not is_quoted
    if empty := next((part for part in named if part.endswith("=--")), None):
        raise UsageError(f"'{empty}': '--' is nothing to look for, and no file")
    return named


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
