"""What a collection was made of: files and folders that were named, how each is indexed, and what could not be."""

import json
import os
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from trivium.pipeline.store import rows as column
from trivium.pipeline.store.database import Connection, damage
from trivium.pipeline.store.rows import maybe, read_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class RootSettings:
    """How a root is indexed, also when it is brought up to date later.

    Args:
        captions: Whether captions become vectors of their items.
        positions: Whether it is kept where media were made.
        metadata: Tables of metadata, absolute paths.
        exclude: Patterns of what is left out below it.
        default_excludes: Whether what usually is left out is.
    """

    captions: bool = True
    positions: bool = False
    metadata: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    default_excludes: bool = True

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> "RootSettings":
        """Read what `asdict` gave and JSON kept; what a later Trivium has beside it is passed over.

        Raises:
            ValueError: If a setting is of another kind.
        """
        known = {of.name: settings[of.name] for of in fields(cls) if of.name in settings}
        plain = cls()
        for name, value in known.items():
            usual = getattr(plain, name)
            if isinstance(usual, tuple):
                if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
                    raise ValueError(f"{name} is no list of texts")
                known[name] = tuple(value)
            elif type(value) is not type(usual):
                raise ValueError(f"{name} is no {type(usual).__name__}")
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A file or folder that was indexed by its name."""

    path: str  # absolute
    device: int | None = None  # where it lay when it was last looked at
    settings: RootSettings = field(default_factory=RootSettings)
    passed: Mapping[str, int] = field(default_factory=dict)  # what was passed over there, by suffix


def read_roots(db: Connection) -> dict[str, Root]:
    """Return all roots by path, in order.

    Raises:
        CollectionError: If they make no sense.
    """
    sql = "SELECT path, device, settings, passed FROM root ORDER BY path"
    types = (column.path, maybe(column.whole), column.json_object, column.json_object)
    roots = {}
    for path, device, settings, passed in read_rows(db, sql, columns=types):
        try:
            parsed = RootSettings.parse(settings)
            if not all(type(count) is int for count in passed.values()):
                raise ValueError("what was passed over is not counted")
        except ValueError as error:
            raise damage(db.database, f"how {path} is indexed makes no sense: {error}") from error
        roots[path] = Root(path=path, device=device, settings=parsed, passed=passed)
    return roots


def read_skipped(db: Connection) -> dict[str, str]:
    """Return why files below the roots could not be indexed, by path, in order.

    Raises:
        CollectionError: If they make no sense.
    """
    return dict(read_rows(db, "SELECT path, reason FROM skipped ORDER BY path", columns=(column.path, column.text)))


def written(root: Root) -> tuple[int | None, str, str]:
    """Return a root's device, settings and what was passed over, as the database keeps them."""
    return root.device, json.dumps(asdict(root.settings)), json.dumps(dict(root.passed))


def nearest(path: str, roots: Container[str]) -> str | None:
    """Return the longest of ``roots`` that an absolute path is or lies below; as fast for many of them as for one."""
    while path not in roots:
        parent = os.path.dirname(path)
        if parent == path:
            return None
        path = parent
    return path
