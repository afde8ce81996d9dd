"""The choice of a kind: small ones compared with all, large ones not, budgets kept, reasons with numbers."""

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.indexes import KINDS, Wish, alternatives, choose, needs_rebuild

COUNTS = (0, 1, 1000, 20_000, 100_000, 1_000_000, 10_000_000)


def size(kind: str, count: int, dim: int) -> float:
    """Bytes in memory, which budgets are about."""
    return KINDS[kind].resident_bytes_per_vector(dim, count) * count


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "fast"}, "unknown index kind 'fast'; known: flat"),
        ({"recall": 0.0}, r"recall must be above 0 and at most 1, got 0\.0"),
        ({"recall": 1.1}, r"recall must be above 0 and at most 1, got 1\.1"),
        ({"recall": float("nan")}, "recall must be above 0 and at most 1, got nan"),
        ({"memory_bytes": 0}, "memory_bytes must be 1 or more, got 0"),
        ({"latency_ms": 0.0}, r"latency_ms must be above 0, got 0\.0"),
        ({"latency_ms": float("nan")}, "latency_ms must be above 0, got nan"),
    ],
)
def test_bad_wishes(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Wish(**fields)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_asked_for(kind: str) -> None:
    for count in COUNTS:
        choice = choose(count, 512, Wish(kind=kind, memory_bytes=1))
        assert (choice.kind, choice.reason) == (kind, f"{kind}: asked for")
        assert alternatives(kind, count, 512, Wish(kind=kind)) == ()


@pytest.mark.parametrize("count", [0, 1, 1000, 20_000])
def test_small_collections_are_compared_with_all(count: int) -> None:
    choice = choose(count, 512, Wish())
    assert choice.kind == "flat"
    assert re.fullmatch(rf"flat: {count:,} x 512 takes about \S+ ms a query; \S+ \S+", choice.reason)


@pytest.mark.parametrize("count", [100_000, 1_000_000, 10_000_000])
def test_large_collections_are_not(count: int) -> None:
    choice = choose(count, 512, Wish())
    assert KINDS[choice.kind].effort_name
    assert re.fullmatch(
        rf"{choice.kind}: {count:,} x 512 would take about \S+ ms a query flat; \S+ .B, of which \S+ .B in memory",
        choice.reason,
    )


def test_the_reason_names_the_budget() -> None:
    choice = choose(1_000_000, 512, Wish(memory_bytes=10**9, recall=0.97))
    whole = KINDS[choice.kind].bytes_per_vector(512, 1_000_000)
    assert choice.reason == (
        f"{choice.kind}: 1,000,000 x 512 would take about 66 ms a query flat; {whole:.3g} MB, "
        f"of which {size(choice.kind, 1_000_000, 512) / 1e6:.3g} MB in memory fits the budget of 1 GB"
    )


@given(
    count=st.integers(0, 10**8),
    dim=st.integers(1, 4096),
    recall=st.floats(0.5, 1),
    memory=st.none() | st.integers(1, 10**12),
    latency=st.none() | st.floats(0.01, 1000),
)
def test_any_wish_gets_a_kind_that_fits_if_one_does(
    count: int, dim: int, recall: float, memory: int | None, latency: float | None
) -> None:
    wish = Wish(recall=recall, memory_bytes=memory, latency_ms=latency)
    choice = choose(count, dim, wish)
    assert choice.reason.startswith(f"{choice.kind}: ")
    others = alternatives(choice.kind, count, dim, wish)
    assert choice.kind not in others
    if memory is not None:
        smallest = min(size(kind, count, dim) for kind in KINDS)
        assert size(choice.kind, count, dim) <= memory or smallest > memory
        assert all(size(kind, count, dim) <= memory for kind in others)


def test_an_impossible_budget_gets_the_smallest_and_the_numbers() -> None:
    choice = choose(1_000_000, 512, Wish(memory_bytes=10**8))
    assert size(choice.kind, 10**6, 512) == min(size(kind, 10**6, 512) for kind in KINDS)
    assert choice.reason == "ivf-pq: the smallest for 1,000,000 x 512, but 151 MB do not fit the budget of 100 MB"


def test_a_budget_too_small_for_8_bits_in_memory() -> None:
    """200 MB hold the product codes of a million vectors, and not half of their 8-bit codes; both sizes are told."""
    choice = choose(1_000_000, 512, Wish(memory_bytes=200 * 10**6))
    assert choice.kind == "ivf-rabitq"
    assert "679 MB, of which 167 MB in memory fits the budget of 200 MB" in choice.reason


def test_a_high_recall_keeps_more_of_each_number() -> None:
    assert "8" not in choose(1_000_000, 512, Wish(recall=0.99)).kind
    tight = choose(1_000_000, 512, Wish(recall=0.999, memory_bytes=600 * 10**6))
    assert "recall 0.999 may be out of reach" in tight.reason


def test_latency_decides_how_long_all_are_compared() -> None:
    assert choose(100_000, 512, Wish(latency_ms=50)).kind == "flat"
    assert KINDS[choose(10_000, 512, Wish(latency_ms=0.1)).kind].effort_name


def test_who_sets_a_latency_gets_the_fastest_lists_and_others_those_that_are_mapped() -> None:
    assert choose(1_000_000, 512, Wish()).kind == "ivf-rabitq"
    assert choose(1_000_000, 512, Wish(latency_ms=1)).kind == "ivf-pq"
    assert choose(1_000_000, 512, Wish(latency_ms=1, recall=0.99)).kind == "ivf-fp16"


@pytest.mark.parametrize("kind", KINDS)
def test_alternatives_keep_more(kind: str) -> None:
    others = alternatives(kind, 100_000, 512, Wish())
    assert others[-1:] == (() if kind == "flat" else ("flat",))
    assert others[:-1] == (("ivf-sq8", "ivf-fp16") if KINDS[kind].candidates > 1 else others[:-1])
    assert all("fp16" in other for other in others[:-1] if other != "ivf-sq8")
    assert kind not in others


@pytest.mark.parametrize("wish", [Wish(), Wish(memory_bytes=10**9), Wish(recall=0.99)])
@pytest.mark.parametrize("count", COUNTS)
def test_no_rebuild_without_growth(count: int, wish: Wish) -> None:
    kind = choose(count, 512, wish).kind
    for now in (count, count * 11 // 10, count * 10 // 11):
        assert needs_rebuild(kind, count, now, 512, wish) is None


def test_lists_built_for_a_missed_recall_stay() -> None:
    """Else they would be given up at the next write for the kind that had missed the recall."""
    for kind in alternatives("ivf-pq", 1_000_000, 512, Wish())[:-1]:
        assert needs_rebuild(kind, 1_000_000, 1_000_001, 512, Wish()) is None
        assert needs_rebuild(kind, 1_000_000, 1_000_001, 512, Wish(memory_bytes=200 * 10**6)) is not None
        assert (needs_rebuild(kind, 1_000_000, 1_000_001, 512, Wish(recall=0.99)) is None) == (kind == "ivf-fp16")
    assert needs_rebuild("flat", 1_000_000, 1_000_001, 512, Wish()) is not None


def test_no_turning_back_and_forth() -> None:
    """Wherever the limits lie: the kind that growth asks for is not given up again at the same size."""
    counts = [int(1000 * 1.2**step) for step in range(40)]
    kind, then, rebuilds = "flat", counts[0], 0
    for count in itertools.chain(counts, counts[::-1]):
        if needs_rebuild(kind, then, count, 512, Wish()):
            kind, then, rebuilds = choose(count, 512, Wish()).kind, count, rebuilds + 1
            assert needs_rebuild(kind, then, count, 512, Wish()) is None
    assert 2 <= rebuilds <= 10
    assert kind == "flat"


def test_reasons_to_rebuild() -> None:
    large = choose(1_000_000, 512, Wish()).kind
    assert needs_rebuild("flat", 10_000, 1_000_000, 512, Wish()) == (
        f"the index is flat, now {choose(1_000_000, 512, Wish()).reason}"
    )
    assert needs_rebuild("flat", 10, 10, 512, Wish(kind="sq8")) == "the index is flat, sq8 was asked for"
    assert needs_rebuild("sq8", 10, 10**7, 512, Wish(kind="sq8")) is None
    assert (needs_rebuild(large, 1_000_000, 1000, 512, Wish()) or "").startswith(
        f"the index is {large}, now flat: 1,000 x"
    )
    assert needs_rebuild("ivf-sq8", 0, 5, 512, Wish(kind="ivf-sq8")) == "the index was made for 0 vectors, there are 5"
    assert needs_rebuild("ivf-sq8", 100_000, 400_001, 512, Wish(kind="ivf-sq8")) == (
        "the index was made for 100,000 vectors, there are 400,001"
    )
    assert needs_rebuild("ivf-sq8", 100_000, 400_000, 512, Wish(kind="ivf-sq8")) is None
