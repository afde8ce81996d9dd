"""Which files and folders a run looks at, how each is indexed, and which of them have vanished.

A file that is gone from its folder is forgotten. Where all or most of a root is gone at once, it is likelier that a
disk is not mounted: then what was there is kept, and marked, until it is back or its owner says that it is gone.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from trivium.pipeline.escaping import printable
from trivium.pipeline.ingest.scanning import Scan
from trivium.pipeline.paths import named
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.roots import Root, RootSettings, nearest
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing

MOST_SHARE, MOST_ITEMS = 0.5, 10  # of a root's items: fewer are deleted on a usual day


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run walks."""

    walked: Mapping[str, RootSettings]  # by path
    roots: Mapping[str, Root]  # that the collection is made of from then on
    known: Set[str]  # that it was made of before

    def settings_of(self, path: str) -> RootSettings:
        """Return how a file below the walked paths is indexed."""
        if len(self.walked) == 1:
            return next(iter(self.walked.values()))
        root = nearest(path, self.walked)
        assert root is not None
        return self.walked[root]

    def after(self, scan: Scan, *, vanished: Set[str]) -> dict[str, Root]:
        """Return the collection's roots as a walk found them; what was asked for and never there is none."""
        roots = {}
        for path, root in self.roots.items():
            if path in scan.devices and path not in vanished:
                passed = root.passed if path in scan.shallow else dict(scan.passed_below.get(path, {}))
                roots[path] = replace(root, device=scan.devices[path], passed=passed)
            elif path in self.known:
                roots[path] = root
        return roots


def plan(known: Mapping[str, Root], media: Collection[str] | None, given: Mapping[str, Any]) -> Plan:
    """Say what is to be walked, and how.

    Args:
        known: The collection's roots by path.
        media: What is asked for, as `paths.named` has it; None for all roots.
        given: Settings that are asked for; others are as the nearest root has them.
    """
    roots = dict(known)
    for path in known if media is None else media:
        above = nearest(path, roots)
        before = RootSettings() if above is None else roots[above].settings
        roots[path] = replace(roots.get(path, Root(path=path)), settings=replace(before, **given))
    settings = {path: root.settings for path, root in roots.items()}
    asked = set(known if media is None else media)
    # A root with settings of its own in a folder that is asked for is walked as it always is.
    walked = {path: settings[path] for path in settings if nearest(path, asked) is not None}
    return Plan(
        walked={path: own for path, own in walked.items() if not _is_covered(path, walked)},
        roots={path: root for path, root in roots.items() if not _is_covered(path, settings)},
        known=known.keys(),
    )


def _is_covered(path: str, settings: Mapping[str, RootSettings]) -> bool:
    """Whether a root above is indexed in the same way."""
    parent = os.path.dirname(path)
    above = None if parent == path else nearest(parent, settings)
    return above is not None and settings[above] == settings[path]


@dataclass(frozen=True, slots=True)
class Vanished:
    """A root whose items are kept although their files are gone."""

    path: str
    reason: str
    items: Sequence[str]  # paths


def vanished_roots(
    plan: Plan, scan: Scan, known: Mapping[str, Root], items: Iterable[str], gone: Set[str]
) -> list[Vanished]:
    """Say where so much is gone at once that it is hardly meant.

    Args:
        plan: What was walked.
        scan: What was found.
        known: The roots before.
        items: Paths of all items that were recorded.
        gone: Of those, whose files are not where the walk has looked.
    """
    unseen = plan.walked.keys() - scan.devices.keys()
    if not gone and not unseen:
        return []
    counts: Counter[str | None] = Counter()
    lost: dict[str, list[str]] = {}
    for path in items:
        root = nearest(path, plan.roots)
        counts[root] += 1
        if (folder := nearest(path, unseen)) is not None:
            lost.setdefault(folder, []).append(path)
        elif root is not None and path in gone:
            lost.setdefault(root, []).append(path)
    reasons = {root: _reason(scan, root, known.get(root), len(paths), counts[root]) for root, paths in lost.items()}
    return [Vanished(root, reasons[root], paths) for root, paths in sorted(lost.items()) if reasons[root]]


def _reason(scan: Scan, root: str, known: Root | None, lost: int, count: int) -> str:
    if (problem := next((problem for problem in scan.problems if problem.path == root), None)) is not None:
        return problem.reason
    if known is not None and known.device not in (None, scan.devices.get(root, known.device)):
        return "another disk lies there than before"
    if lost == count:
        return "all of its files are gone"
    if lost >= MOST_ITEMS and lost > MOST_SHARE * count:
        return "most of its files are gone"
    return ""


def forget(store: Store, root: str | os.PathLike[str]) -> int:
    """Forget a root, and all items below it that no other root has; return how many.

    Raises:
        CollectionError: If the collection has no such root, or another process is writing to it.
    """
    path, roots = named(root), store.roots()
    if path not in roots:
        known = ", ".join(map(printable, roots)) or "none"
        raise CollectionError(f"{path} is not what {store.folder} was made of, which is: {known}")
    left = {name: other for name, other in roots.items() if name != path}
    with writing(store) as writer:
        is_covered = nearest(path, left) is not None  # with other settings; from now on as the root above has it
        own = [] if is_covered else [item.id for name, item in store.states().items() if nearest(name, roots) == path]
        if own:
            writer.remove(own)
        writer.set_skipped([path], {})
        writer.set_roots(left)
    return len(own)
