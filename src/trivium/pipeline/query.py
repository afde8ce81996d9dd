"""What a user asks for: texts, pictures and sounds with weights, combined into one vector."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import DecodeError, Modality
from trivium.fusion.combination import weighted_sum
from trivium.pipeline.spaces import JointSpace

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


def query_vector(space: JointSpace, parts: Sequence[QueryPart]) -> NDArray[np.float32]:
    """Encode the parts and combine them to one unit vector, shape (d,).

    Raises:
        QueryError: If there is no part, one cannot be decoded, or the parts cancel out.
    """
    if not parts:
        raise QueryError("an empty query: give a text, a picture or a sound")
    vectors = []
    for part in parts:
        try:
            vectors.append(space.encode(part.modality, [part.item])[0])
        except DecodeError as error:
            raise QueryError(f"the {part.modality} of the query cannot be used ({part.item!r}): {error}") from error
    try:
        return weighted_sum(np.stack(vectors), [part.weight for part in parts])
    except ValueError as error:
        raise QueryError(str(error)) from error
