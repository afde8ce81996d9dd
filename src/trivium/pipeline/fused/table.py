"""Tables in files as frames: the columns of texts and files by their roles, all others as they are.

Unlike `pairs.read_pairs` this refuses no row: a file that is not there is a missing modality, and predictions have a
row for each row of the table.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trivium.encoders.several import path_of
from trivium.pipeline.features.frames import file_of
from trivium.pipeline.suffixes import kind_of_name
from trivium.pipeline.tables.pairs import PATH_COLUMNS, SYNONYMS, Role, find_roles, table_rows
from trivium.pipeline.tables.reading import TableError, find_column, is_utf8

ITEM_ROLES: tuple[Role, ...] = ("text", "image", "audio")
NEEDS = "needs pandas and scikit-learn: run pip install 'trivium[learn]'"


def read_frame(path: str | os.PathLike[str], *, columns: Mapping[Role, str] | None = None) -> Any:
    """Read a table as a pandas DataFrame with columns among text, image and audio, and all others.

    Args:
        path: Lines of JSON if the name ends in .jsonl or .ndjson, Parquet if in .parquet, else CSV.
        columns: The column of a role, where it is not the one of the role's name or a synonym's.

    Raises:
        TableError: If it cannot be read, or has neither texts nor files.
    """
    import pandas

    path, columns = Path(path_of(path, "path")), columns or {}
    rows = _rows(path)
    if not rows:
        raise TableError(f"{path} has no rows")
    names = list(dict.fromkeys(name for row in rows for name in row))
    found: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
    folder = Path(os.path.realpath(path.absolute().parent))
    for role, name in columns.items():
        if role in ITEM_ROLES and name and find_column(names, (name,)) is None:
            raise TableError(f"{path} has no column '{name}' (--column); its columns: {', '.join(names)}")
    found_roles, of_files = find_roles(names, columns)
    roles = {role: name for role, name in found_roles.items() if role in ITEM_ROLES}
    made: dict[str, list[Any]] = {role: _column(role, found[name], folder) for role, name in roles.items()}
    if of_files is not None:
        made |= _by_suffix(found[of_files], folder)
    if not made:
        raise TableError(f"{path} has no column of text, image or audio; its columns: {', '.join(names)}")
    others = {name: cells for name, cells in found.items() if name not in made}
    for name, cells in {**others, **{role: made[role] for role in made if role == "text"}}.items():
        if not is_utf8(name) or not all(is_utf8(cell) for cell in cells if isinstance(cell, str)):
            raise TableError(f"{path}: column {name[:40]!a} is not UTF-8: save the table as UTF-8")
    # Names of files need not be UTF-8, which pandas asks of texts.
    files = {role: pandas.Series(cells, dtype=object) for role, cells in made.items() if role != "text"}
    return pandas.DataFrame({**others, **made, **files})


def _rows(path: Path) -> list[Mapping[str, Any]]:
    refused: list[tuple[int, str]] = []

    def known(names: Sequence[str]) -> int:
        return len({*ITEM_ROLES, *PATH_COLUMNS, *SYNONYMS["text"]} & {name.lower() for name in names})

    def refuse(line: int, reason: str) -> None:
        refused.append((line, reason))

    # Pictures may lie in the table itself, which may be large then.
    rows = [cells for _, cells in table_rows(path, refuse, known=known, max_parquet_bytes=math.inf)]
    if refused:  # a prediction for each row: none may be passed over
        line, reason = refused[0]
        raise TableError(f"{path}, line {line}: {reason} ({len(refused):,} such lines)")
    return rows


def _column(role: str, cells: list[Any], folder: Path) -> list[str | bytes | None]:
    if role == "text":
        return [_text(cell) for cell in cells]
    files = [file_of(cell) for cell in cells]
    return [file if isinstance(file, bytes) else _path(file, folder) for file in files]


def _text(cell: Any) -> str | None:
    return None if cell is None or cell != cell or not str(cell).strip() else str(cell)


def _path(cell: Any, folder: Path) -> str | None:
    text = _text(cell)
    return None if text is None else str(folder / text.strip())


def _by_suffix(cells: list[Any], folder: Path) -> dict[str, list[str | None]]:
    paths = [_path(cell, folder) for cell in cells]
    kinds = [None if path is None else kind_of_name(path) for path in paths]
    return {
        role: [path if kind == role else None for path, kind in zip(paths, kinds, strict=True)]
        for role in ("image", "audio")
        if role in kinds
    }
