"""Tables in files as frames: the columns of texts and files by their roles, all others as they are.

Unlike `tables.read_pairs` this refuses no row: a file that is not there is a missing modality, and predictions have a
row for each row of the table.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trivium.pipeline.features.frames import file_of
from trivium.pipeline.records import SUFFIXES
from trivium.pipeline.tables.metadata import json_rows
from trivium.pipeline.tables.pairs import PATH_COLUMNS, SYNONYMS, Role
from trivium.pipeline.tables.reading import CsvRows, TableError, is_utf8, open_lines, table_kind

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

    path, columns = Path(path), columns or {}
    rows = _rows(path)
    if not rows:
        raise TableError(f"{path} has no rows")
    names = list(dict.fromkeys(name for row in rows for name in row))
    found: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
    folder = Path(os.path.realpath(path.absolute().parent))
    roles = _roles(path, names, columns)
    made: dict[str, list[Any]] = {role: _column(role, found[name], folder) for role, name in roles.items()}
    if not {"image", "audio"} & roles.keys() and not {"image", "audio"} & columns.keys():
        of_files = next((name for name in names if name.lower() in PATH_COLUMNS), None)
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
    if table_kind(path) == "parquet":
        import pandas

        try:
            frame = pandas.read_parquet(path)
            return [dict(zip(map(str, frame.columns), row, strict=True)) for row in frame.itertuples(index=False)]
        except Exception as error:  # a damaged file fails in many ways
            raise TableError(f"{path} cannot be read as Parquet: {error}") from error
    rows: list[Mapping[str, Any]] = []
    with open_lines(path, lambda line, reason: refused.append((line, reason))) as lines:
        if table_kind(path) == "lines":
            rows = [row for _, row in json_rows(lines, lambda line, reason: refused.append((line, reason)))]
        else:
            table = CsvRows(lines, path, known=lambda names: sum(name.lower() in KNOWN for name in names))
            names = list(table.columns)
            rows = [{name: cell for name, cell in zip(names, cells, strict=True) if name} for _, cells in table]
    if refused:  # a prediction for each row: none may be passed over
        line, reason = refused[0]
        raise TableError(f"{path}, line {line}: {reason} ({len(refused):,} such lines)")
    return rows


KNOWN = frozenset({*ITEM_ROLES, *PATH_COLUMNS, *(name for names in SYNONYMS.values() for name in names)})


def _roles(path: Path, names: list[str], columns: Mapping[Role, str]) -> dict[str, str]:
    by_lower = {name.lower(): name for name in reversed(names)}
    found: dict[str, str] = {}
    for role in ITEM_ROLES:
        if role in columns:
            if not columns[role]:
                continue  # left out on purpose
            if columns[role] not in names:
                raise TableError(f"{path} has no column '{columns[role]}' (--column); its columns: {', '.join(names)}")
            found[role] = columns[role]
            continue
        wanted = (role, *SYNONYMS.get(role, ()))
        column = next((by_lower[name] for name in wanted if name in by_lower), None)
        if column is not None:
            found[role] = column
    return found


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
    kinds = [None if path is None else SUFFIXES.get(os.path.splitext(path)[1].lower()) for path in paths]
    return {
        role: [path if kind == role else None for path, kind in zip(paths, kinds, strict=True)]
        for role in ("image", "audio")
        if role in kinds
    }
