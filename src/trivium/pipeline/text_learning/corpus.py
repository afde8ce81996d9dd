"""Texts to learn from: files, folders of files, and tables with a column of texts; no labels are needed."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.texts import decode_text
from trivium.encoders.files.reading import read_file
from trivium.pipeline.tables.pairs import Role, read_pairs
from trivium.pipeline.tables.reading import TableError
from trivium.pipeline.text_learning.classifying import LabelledTexts

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".text")


class CorpusError(TableError):
    """Texts that cannot be used at all."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts without labels, each once, and what was left out."""

    texts: Sequence[str]
    left_out: Sequence[str]  # a line for each file, or for a table's rows


def read_corpus(
    sources: Sequence[str | os.PathLike[str]], *, columns: Mapping[Role, str], where: Mapping[str, str]
) -> Corpus:
    """Read texts.

    Args:
        sources: Files that end as text files do, each a text; folders of such; all others are tables.
        columns: See `read_pairs`; only texts are used.
        where: See `read_pairs`.

    Raises:
        CorpusError: If there is not a single text.
        TableError: If a table cannot be used at all.
    """
    texts: dict[str, None] = {}
    left_out: list[str] = []
    for source in map(Path, sources):
        if source.is_dir():
            found = sorted(path for path in source.rglob("*") if path.suffix.lower() in TEXT_SUFFIXES)
            _read_files(found, texts, left_out)
        elif source.suffix.lower() in TEXT_SUFFIXES:
            _read_files([source], texts, left_out)
        else:
            table = read_pairs(source, columns=_only(columns, "text"), where=where)
            texts |= dict.fromkeys(row.text for row in table.rows if row.text is not None)
            if table.refused:
                left_out.append(f"{source}: {len(table.refused):,} rows, the first: {table.refused[0].reason}")
    if not texts:
        raise CorpusError(f"no texts in {', '.join(map(str, sources))}" + (f": {left_out[0]}" if left_out else ""))
    return Corpus(list(texts), left_out)


def read_labelled(path: str, *, columns: Mapping[Role, str], where: Mapping[str, str]) -> LabelledTexts:
    """Read the rows of a table that have both a text and a label.

    Raises:
        CorpusError: If none has.
        TableError: If the table cannot be used at all.
    """
    table = read_pairs(path, columns=_only(columns, "text", "label"), where=where)
    pairs = [(row.text, row.label) for row in table.rows if row.text is not None and row.label is not None]
    if not pairs:
        raise CorpusError(
            f"{path} has no row with a text and a label: --column text=NAME, --column label=NAME say which"
        )
    return LabelledTexts([text for text, _ in pairs], [label for _, label in pairs])


def _only(columns: Mapping[Role, str], *roles: Role) -> dict[Role, str]:
    """Leave out pictures and sounds, which need not be there."""
    found: dict[Role, str] = {"image": "", "audio": "", "score": ""}
    if "label" not in roles:
        found["label"] = ""
    for role, name in columns.items():
        if role in roles:
            found[role] = name
    return found


def _read_files(paths: Sequence[Path], texts: dict[str, None], left_out: list[str]) -> None:
    for path in paths:
        try:
            texts.setdefault(decode_text(read_file(path)))
        except DecodeError as error:
            left_out.append(f"{path}: {error.reason}")
