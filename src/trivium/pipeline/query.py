"""What a user asks for: texts, pictures and sounds with weights, combined into one vector."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trivium.encoders.base import DecodeError, Modality, Prepared, Vectors
from trivium.fusion.combination import weighted_sum
from trivium.pipeline.spaces import JointSpace

BATCH_PARTS = 32  # encoded in one pass
# "2:beach", "-0.5:crowd", "-crowd"; a text that itself begins so is written with a weight: "1:10:30 train".
WEIGHTED = re.compile(r"(?P<weight>[+-]?(?:\d+(?:\.\d*)?|\.\d+)):(?P<rest>.*)", re.DOTALL)


class QueryError(ValueError):
    """A query that cannot be answered as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryPart:
    """One text, picture or sound of a query; a negative weight means "less of this"."""

    modality: Modality
    item: Any  # what the space's encoder takes
    weight: float = 1.0


def parse_part(modality: Modality, written: str) -> QueryPart:
    """Read ``item``, ``-item`` or ``weight:item``.

    Raises:
        QueryError: If nothing is left beside the weight.
    """
    weight, item = 1.0, written
    if match := WEIGHTED.fullmatch(written):
        weight, item = float(match["weight"]), match["rest"]
    elif written.startswith("-"):
        weight, item = -1.0, written[1:]
    if not item.strip():
        raise QueryError(f"an empty query: '{written}' names no {modality}")
    return QueryPart(modality=modality, item=item.strip() if modality == "text" else item, weight=weight)


def query_vectors(space: JointSpace, queries: Sequence[Sequence[QueryPart]]) -> Vectors:
    """Encode queries, many at a time, and combine the parts of each to one unit vector: shape (q, d).

    Raises:
        QueryError: If a query has no part, a part cannot be decoded, or the parts of a query cancel out.
    """
    if not all(queries):
        raise QueryError("an empty query: give a text, a picture or a sound")
    parts = [part for query in queries for part in query]
    vectors = np.empty((len(parts), space.space.dim), np.float32)
    asked: set[Modality] = {part.modality for part in parts}
    for modality in asked:
        places = [place for place, part in enumerate(parts) if part.modality == modality]
        for start in range(0, len(places), BATCH_PARTS):
            batch = places[start : start + BATCH_PARTS]
            prepared = [_prepared(space, parts[place]) for place in batch]
            vectors[batch] = space.encoder(modality).embed(prepared)
    combined, start = [], 0
    for query in queries:
        try:
            combined.append(weighted_sum(vectors[start : start + len(query)], [part.weight for part in query]))
        except ValueError as error:
            raise QueryError(str(error)) from error
        start += len(query)
    return np.stack(combined) if combined else vectors


def _prepared(space: JointSpace, part: QueryPart) -> Prepared:
    try:
        return space.encoder(part.modality).prepare(part.item)
    except DecodeError as error:
        raise QueryError(f"the {part.modality} of the query cannot be used ({part.item!r}): {error}") from error
