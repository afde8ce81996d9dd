"""The kinds of index, by name: what FAISS is told to build, what it takes, and what effort means for it.

A *kind* is a way to store and search; its *effort* is the one number that trades time for recall in a search.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

EffortName: TypeAlias = Literal["nprobe", "efSearch"]

_POSITION_BYTES = 8  # our map from a vector's position to its id, int64
_LIST_ID_BYTES = 8  # an inverted list stores the position beside the code
_LINKS = 32  # HNSW's M: the notes' measured default
# 2 M links of 4 bytes at the bottom, M at each level above (1 in M vectors has one), its level (4) and its offset (8).
_GRAPH_BYTES = 2 * _LINKS * 4 + _LINKS * 4 / (_LINKS - 1) + 12
_GRAPH_EFFORT_AT_MOST = 2048  # beyond, comparing with all is as fast
_TRAINING_PER_LIST = 39  # fewer training vectors per list, and FAISS warns
_CODE_BLOCK = 32  # lists of product codes are filled up to a multiple of this
_RABITQ_FACTORS = 20  # bytes beside the bits of a vector: 3 float32 for the first bit, 2 for the second


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way to store and search vectors."""

    name: str
    summary: str  # one line for users
    codes: Callable[[int], str]  # dim -> FAISS's name of how a vector is stored
    code_bytes: Callable[[int, int], float]  # (dim, count) -> bytes of one
    effort_name: EffortName | None = None  # of inverted lists, of a graph; None: every vector is compared
    is_exact: bool = False  # scores and order are those of float32 arithmetic on what was given
    candidates: int = (
        1  # for each wanted hit, how many a refine step compares anew in 8 bits a number; 1: there is none
    )

    def factory(self, count: int, dim: int) -> str:
        """Return FAISS's name for it."""
        before = {None: "", "efSearch": f"HNSW{_LINKS},", "nprobe": f"IVF{lists(count)},"}[self.effort_name]
        return before + self.codes(dim) + (",Refine(SQ8)" if self.candidates > 1 else "")

    def bytes_per_vector(self, dim: int, count: int) -> float:
        """Estimate the bytes on disk, and in memory while building."""
        found = self.code_bytes(dim, count) + self._refined_bytes(dim) + _POSITION_BYTES
        if self.effort_name == "efSearch":
            found += _GRAPH_BYTES
        elif self.effort_name == "nprobe":
            found += _LIST_ID_BYTES + 4 * dim * lists(count) / max(count, 1)  # and its share of the lists' centres
        return found

    def resident_bytes_per_vector(self, dim: int, count: int) -> float:
        """Estimate what searches read again and again; the rest may stay in the file that is mapped."""
        return self.bytes_per_vector(dim, count) - self._refined_bytes(dim)

    def efforts(self, most: int) -> tuple[int, ...]:
        """List the efforts worth trying, rising, where ``most`` is all there is; empty if there is no choice."""
        if self.effort_name == "nprobe":
            return _ladder(1, most)
        if self.effort_name == "efSearch":
            return _ladder(16, max(16, min(most, _GRAPH_EFFORT_AT_MOST)))
        return ()

    def _refined_bytes(self, dim: int) -> int:
        return dim if self.candidates > 1 else 0


def lists(count: int) -> int:
    """How many inverted lists ``count`` vectors are split into: 1.6 sqrt(n), but no list without vectors to train it.

    At a million, 2 sqrt(n) made searches 7 % faster and building 13 % slower; sqrt(n) made them a third slower.
    """
    return max(1, min(round(1.6 * math.sqrt(count)), count // _TRAINING_PER_LIST))


def _ladder(lowest: int, highest: int) -> tuple[int, ...]:
    """From ``lowest`` to ``highest``, four steps to each doubling: ..., 8, 10, 12, 14, 16, 20, 24, 28, 32, ..."""
    steps = [lowest]
    while steps[-1] < highest:
        steps.append(steps[-1] + max(1, 2 ** int(math.log2(steps[-1])) // 4))
    return (*[step for step in steps if step < highest], highest)


def _numbers(name: str, summary: str, codes: str, effort_name: EffortName | None, *, is_exact: bool = False) -> Kind:
    """Return a kind that stores each number by itself, as float32, half precision or 8 bits."""
    size = {"Flat": 4, "SQfp16": 2, "SQ8": 1}[codes]
    return Kind(
        name=name,
        summary=summary,
        codes=lambda _dim: codes,
        code_bytes=lambda dim, _count: size * dim,
        effort_name=effort_name,
        is_exact=is_exact,
    )


def _parts(dim: int) -> int:
    """How many parts of 2 numbers a vector is cut into, each to become one 4-bit code; of 1 if the width is odd."""
    return dim if dim % 2 else dim // 2


def _product_code_bytes(dim: int, count: int) -> float:
    code = (_parts(dim) + 1) // 2
    return code + code * lists(count) * _CODE_BLOCK / 2 / max(count, 1)


_ALL = (
    _numbers("flat", "every vector compared, float32, exact", "Flat", None, is_exact=True),
    _numbers("fp16", "every vector compared, half precision", "SQfp16", None),
    _numbers("sq8", "every vector compared, 8 bits a number", "SQ8", None),
    _numbers("hnsw", "a graph of neighbours, float32", "Flat", "efSearch"),
    _numbers("hnsw-sq8", "a graph of neighbours, 8 bits a number", "SQ8", "efSearch"),
    _numbers("ivf-flat", "the nearest of many lists, float32", "Flat", "nprobe"),
    _numbers("ivf-fp16", "the nearest of many lists, half precision", "SQfp16", "nprobe"),
    _numbers("ivf-sq8", "the nearest of many lists, 8 bits a number", "SQ8", "nprobe"),
    Kind(
        name="ivf-rabitq",
        summary="the nearest of many lists, 2 bits a number (RaBitQ), the best compared anew in 8 bits a number",
        codes=lambda _dim: "RaBitQ2",
        code_bytes=lambda dim, _count: 2 * math.ceil(dim / 8) + _RABITQ_FACTORS,
        effort_name="nprobe",
        candidates=16,
    ),
    Kind(
        name="ivf-pq",
        summary="the nearest of many lists, 2 bits a number (product codes), the best compared anew in 8 bits a number",
        codes=lambda dim: f"PQ{_parts(dim)}x4fs",
        code_bytes=_product_code_bytes,
        effort_name="nprobe",
        candidates=32,
    ),
)

KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _ALL})


def kind_named(name: str) -> Kind:
    """Return the kind of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in KINDS:
        raise ValueError(f"unknown index kind '{name}'; known: {', '.join(KINDS)}")
    return KINDS[name]
