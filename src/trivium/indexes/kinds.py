"""The kinds of index, by name: what FAISS is told to build, what it takes, and what effort means for it.

A *kind* is a way to store and search; its *effort* is the one number that trades time for recall in a search.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

EffortName: TypeAlias = Literal["nprobe", "efSearch"]

POSITION_BYTES = 8  # our map from a vector's position to its id, int64
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
    factory: Callable[[int, int], str]  # (count, dim) -> FAISS's name for it
    bytes_per_vector: Callable[[int, int], float]  # (dim, count) -> bytes on disk, and in memory while building
    effort_name: EffortName | None  # None: every vector is compared
    is_exact: bool  # scores and order are those of float32 arithmetic on what was given
    refined_bytes: Callable[[int], int] = lambda _dim: (
        0
    )  # dim -> those bytes of a vector that only the refine step reads
    candidates: int = 1  # for each wanted hit, how many the refine step compares anew

    def resident_bytes_per_vector(self, dim: int, count: int) -> float:
        """Estimate what searches read again and again; the rest may stay in the file that is mapped."""
        return self.bytes_per_vector(dim, count) - self.refined_bytes(dim)

    def efforts(self, most: int) -> tuple[int, ...]:
        """List the efforts worth trying, rising, where ``most`` is all there is; empty if there is no choice."""
        if self.effort_name == "nprobe":
            return _ladder(1, most)
        if self.effort_name == "efSearch":
            return _ladder(16, max(16, min(most, _GRAPH_EFFORT_AT_MOST)))
        return ()


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


def _centroid_bytes(dim: int, count: int) -> float:
    return 4 * dim * lists(count) / max(count, 1)


def _parts(dim: int) -> int:
    """How many parts of 2 numbers a vector is cut into, each to become one 4-bit code; of 1 if the width is odd."""
    return dim if dim % 2 else dim // 2


def _flat_kind(name: str, summary: str, factory: str, bytes_per_number: float, *, is_exact: bool = False) -> Kind:
    return Kind(
        name=name,
        summary=summary,
        factory=lambda _count, _dim: factory,
        bytes_per_vector=lambda dim, _count: bytes_per_number * dim + POSITION_BYTES,
        effort_name=None,
        is_exact=is_exact,
    )


def _hnsw_kind(name: str, summary: str, storage: str, bytes_per_number: float) -> Kind:
    return Kind(
        name=name,
        summary=summary,
        factory=lambda _count, _dim: f"HNSW{_LINKS},{storage}",
        bytes_per_vector=lambda dim, _count: bytes_per_number * dim + _GRAPH_BYTES + POSITION_BYTES,
        effort_name="efSearch",
        is_exact=False,
    )


def _ivf_kind(name: str, summary: str, codes: str, bytes_per_number: float) -> Kind:
    return Kind(
        name=name,
        summary=summary,
        factory=lambda count, _dim: f"IVF{lists(count)},{codes}",
        bytes_per_vector=lambda dim, count: (
            bytes_per_number * dim + _LIST_ID_BYTES + POSITION_BYTES + _centroid_bytes(dim, count)
        ),
        effort_name="nprobe",
        is_exact=False,
    )


def _refined_kind(
    name: str,
    summary: str,
    codes: Callable[[int], str],  # dim -> FAISS's name of what the lists hold
    bytes_per_code: Callable[[int, int], float],  # (dim, count) -> bytes in the lists
    candidates: int,
) -> Kind:
    return Kind(
        name=name,
        summary=summary,
        factory=lambda count, dim: f"IVF{lists(count)},{codes(dim)},Refine(SQ8)",
        bytes_per_vector=lambda dim, count: (
            bytes_per_code(dim, count) + dim + _LIST_ID_BYTES + POSITION_BYTES + _centroid_bytes(dim, count)
        ),
        effort_name="nprobe",
        is_exact=False,
        refined_bytes=lambda dim: dim,
        candidates=candidates,
    )


def _product_code_bytes(dim: int, count: int) -> float:
    code = (_parts(dim) + 1) // 2
    return code + code * lists(count) * _CODE_BLOCK / 2 / max(count, 1)


def _rabitq_code_bytes(dim: int, _count: int) -> float:
    return 2 * math.ceil(dim / 8) + _RABITQ_FACTORS


_ALL = (
    _flat_kind("flat", "every vector compared, float32, exact", "Flat", 4, is_exact=True),
    _flat_kind("fp16", "every vector compared, half precision", "SQfp16", 2),
    _flat_kind("sq8", "every vector compared, 8 bits a number", "SQ8", 1),
    _hnsw_kind("hnsw", "a graph of neighbours, float32", "Flat", 4),
    _hnsw_kind("hnsw-sq8", "a graph of neighbours, 8 bits a number", "SQ8", 1),
    _ivf_kind("ivf-flat", "the nearest of many lists, float32", "Flat", 4),
    _ivf_kind("ivf-fp16", "the nearest of many lists, half precision", "SQfp16", 2),
    _ivf_kind("ivf-sq8", "the nearest of many lists, 8 bits a number", "SQ8", 1),
    _refined_kind(
        "ivf-rabitq",
        "the nearest of many lists, 2 bits a number (RaBitQ), the best compared anew in 8 bits a number",
        lambda _dim: "RaBitQ2",
        _rabitq_code_bytes,
        candidates=16,
    ),
    _refined_kind(
        "ivf-pq",
        "the nearest of many lists, 2 bits a number (product codes), the best compared anew in 8 bits a number",
        lambda dim: f"PQ{_parts(dim)}x4fs",
        _product_code_bytes,
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
