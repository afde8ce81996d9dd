"""What comes from outside, made safe to show: in a terminal, in a page of HTML, in Markdown.

Names, captions, and every text of a database that somebody else has made may hold whatever they like. So nothing is
printed but by `terminal.say`, no HTML is made but by `markup`, and what Markdown is made of goes through `plain` or
`code_block`: who adds a field cannot forget it.
"""

import re
import string
from collections.abc import Iterable, Sequence

# What begins something in Markdown, in the middle of a line; "_" does so only at the ends of a word.
_MARKDOWN = re.compile(r"[\\`*\[\]<|&~$]|(?<![^\W_])_|_(?![^\W_])")
_FENCE = "```"


def printable(text: object) -> str:
    """Make any file name or caption safe to show: one line, control characters and broken bytes escaped."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


class Html(str):
    """A text that is HTML already."""

    __slots__ = ()


def markup(template: str, **fields: object) -> Html:
    """Put fields into a template of HTML, each escaped unless it is HTML already.

    Args:
        template: HTML with ``{name}`` where a field goes, in the text or in a quoted attribute.
        fields: By name. A sequence of HTML is put there one after the other.
    """
    return Html(_TEMPLATES.vformat(template, (), fields))


class _Escaping(string.Formatter):
    def format_field(self, value: object, format_spec: str) -> str:
        if format_spec:
            value = format(value, format_spec)
        import html  # with a table of all entities, which takes 8 ms: a search that writes no page waits for none

        return value if isinstance(value, Html) else html.escape(printable(value))


_TEMPLATES = _Escaping()


def joined(parts: Iterable[Html], between: Html | None = None) -> Html:
    """Return HTML one after the other, with HTML between; each has to be HTML already.

    Raises:
        TypeError: If one is a text that may be anything.
    """
    parts = list(parts)
    if not all(isinstance(part, Html) for part in parts):
        raise TypeError("only HTML can be joined to HTML; `markup` makes it of a text")
    return Html((between or "").join(parts))


def plain(text: object) -> str:
    """Write a text so that it cannot be Markdown of its own."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(text))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return a table of Markdown: the first column to the left, numbers to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(map(plain, row))} |" for row in (header, rule, *rows)]


def text_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return a table of the terminal: the first column to the left, numbers to the right."""
    shown = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(len(header))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]


def code_block(lines: Iterable[str]) -> list[str]:
    """Return lines as a block of code in Markdown, which none of them can end."""
    shown = [printable(line) for line in lines]
    longest = max((len(run) for line in shown for run in re.findall("`+", line)), default=0)
    fence = "`" * max(len(_FENCE), longest + 1)
    return [fence, *shown, fence]


def code(text: object) -> str:
    """Return a text as code within a line of Markdown, which it cannot end; not for tables, where a bar would do so."""
    shown = printable(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    return f"{fence} {shown} {fence}" if "`" in shown else f"{fence}{shown}{fence}"
