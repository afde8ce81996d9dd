"""Every kind of index: search, filters, deleted ids, adding, files; exact ones against brute force in NumPy.

Numbers are quarters where equality is tested: float32 sums of them are exact, ties too.
"""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from trivium.indexes import KINDS, ArraySource, FaissIndex, Hits, IdSet
from trivium.indexes.scan import faiss_threads, flat_search

if TYPE_CHECKING:
    from tests.indexes.conftest import Data

QUARTERS = st.integers(-4, 4).map(lambda number: number / 4)
DIM = 3
FAR = 2**62
ID = st.integers(0, 20) | st.integers(FAR, FAR + 3)
# Recall@10 at full effort on the clustered data of conftest.py: what the codes leave.
FLOORS = {
    "flat": 1.0,
    "fp16": 0.99,
    "sq8": 0.95,
    "hnsw": 0.99,
    "hnsw-sq8": 0.95,
    "ivf-flat": 1.0,
    "ivf-fp16": 0.99,
    "ivf-sq8": 0.95,
    "ivf-rabitq": 0.95,
    "ivf-pq": 0.95,
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def rows(count: int) -> st.SearchStrategy[NDArray[np.float32]]:
    return arrays(np.float32, (count, DIM), elements=QUARTERS)


@st.composite
def collections(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Up to 12 vectors under unique ids in any order, some near 2^62."""
    ids = draw(st.lists(ID, unique=True, max_size=12))
    return np.array(ids, np.int64), draw(rows(len(ids)))


def ids_of(some: set[int] | list[int]) -> IdSet:
    return IdSet(np.array(sorted(some), np.int64))


def built(kind: str, data: "Data") -> FaissIndex:
    return FaissIndex.build(kind, data.source, threads=1)


def recall(hits: Hits, truth: NDArray[np.int64]) -> float:
    return float(
        np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(hits.ids.tolist(), truth.tolist(), strict=True)])
    )


def content(index: FaissIndex) -> bytes:
    pieces: list[bytes] = []
    index.write(pieces.append)
    return b"".join(pieces)


def same(first: Hits, second: Hits) -> None:
    assert first.ids.tolist() == second.ids.tolist()
    assert first.scores.tolist() == second.scores.tolist()
    assert first.counts.tolist() == second.counts.tolist()


# --- against brute force ---------------------------------------------------------------------------------------------


def check(hits: Hits, ids: Any, vectors: Any, queries: Any, k: int, allowed: set[int]) -> None:
    """The same scores in order; of equal ones any ids, but right, only once, and rising."""
    assert len(hits.ids) == len(hits.scores) == len(hits.counts) == len(queries)
    for number, query in enumerate(queries):
        scores = {
            int(id_): float(query @ vector) for id_, vector in zip(ids, vectors, strict=True) if int(id_) in allowed
        }
        best = sorted(scores.values(), reverse=True)[:k]
        found_ids, found_scores = hits.of(number)
        assert found_scores.tolist() == best
        assert [scores[int(id_)] for id_ in found_ids] == best
        order = list(zip((-found_scores).tolist(), found_ids.tolist(), strict=True))
        assert order == sorted(set(order))
        assert (hits.ids[number, len(best) :] == -1).all()


@pytest.mark.parametrize("kind", ["flat", "fp16", "hnsw", "ivf-flat"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.differing_executors])
@given(
    made=collections(),
    queries=st.integers(0, 7).flatmap(rows),
    k=st.integers(1, 15),
    among=st.none() | st.sets(ID, max_size=10),
    without=st.none() | st.sets(ID, max_size=10),
)
def test_equals_brute_force(
    kind: str,
    made: tuple[NDArray[np.int64], NDArray[np.float32]],
    queries: NDArray[np.float32],
    k: int,
    among: set[int] | None,
    without: set[int] | None,
) -> None:
    """Quarters fit 16 bits, and with full effort nothing is left out; the ids of a set may be unknown to the index."""
    ids, vectors = made
    if not len(ids) and kind == "ivf-flat":
        return
    index = FaissIndex.build(kind, ArraySource(ids, vectors), threads=1)
    assert (len(index), index.dim, index.ids.tolist()) == (len(ids), DIM, sorted(ids.tolist()))
    hits = index.search(
        queries,
        k=k,
        among=None if among is None else ids_of(among),
        without=None if without is None else ids_of(without),
    )
    allowed = {int(id_) for id_ in ids if (among is None or id_ in among) and (without is None or id_ not in without)}
    check(hits, ids, vectors, queries, k, allowed)


# --- every kind ------------------------------------------------------------------------------------------------------


@EVERY_KIND
def test_recall_with_all_effort(kind: str, data: "Data") -> None:
    index = built(kind, data)
    for queries in (data.near, data.aside):
        hits = index.search(queries, k=10)
        assert hits.counts.tolist() == [10] * len(queries)
        assert (hits.scores[:, 1:] <= hits.scores[:, :-1]).all()
        assert recall(hits, data.nearest(queries, 10)) >= FLOORS[kind]


@EVERY_KIND
def test_single_queries_find_what_batches_find(kind: str, data: "Data") -> None:
    index = built(kind, data)
    batch = index.search(data.near, k=10)
    for number in range(0, len(data.near), 7):
        alone = index.search(data.near[number : number + 1], k=10)
        np.testing.assert_allclose(alone.scores[0], batch.scores[number], atol=1e-5)


@EVERY_KIND
def test_effort_counts(kind: str, data: "Data") -> None:
    """Each step looks at more; the least still finds as many hits as were asked for."""
    index = built(kind, data)
    truth = data.nearest(data.near, 10)
    if not index.efforts:
        assert index.effort is None
        return
    found = []
    for effort in (index.efforts[0], index.efforts[len(index.efforts) // 2], index.efforts[-1]):
        index.effort = effort
        hits = index.search(data.near, k=10)
        assert hits.counts.tolist() == [10] * len(data.near)
        found.append(recall(hits, truth))
    assert found == sorted(found)
    assert found[0] < found[-1] or found[0] > 0.95


@EVERY_KIND
@pytest.mark.parametrize("count", [1, 2, 17, 77])
def test_few_vectors(kind: str, count: int, data: "Data") -> None:
    index = FaissIndex.build(kind, ArraySource(data.ids[:count], data.vectors[:count]), threads=1)
    hits = index.search(data.vectors[:count], k=1000)
    assert hits.ids.shape == (count, count)
    assert hits.counts.tolist() == [count] * count
    assert np.sort(hits.ids, axis=1).tolist() == [data.ids[:count].tolist()] * count


@EVERY_KIND
def test_all_vectors_equal(kind: str) -> None:
    """Ties by rising id, and training that has nothing to tell apart."""
    vectors = np.tile(np.array([0.6, 0.8, 0, 0], np.float32), (100, 1))
    index = FaissIndex.build(kind, ArraySource(np.arange(100) + FAR, vectors), threads=1)
    hits = index.search(vectors[:2], k=5)
    assert hits.counts.tolist() == [5, 5]
    assert (np.diff(hits.ids, axis=1) > 0).all()
    everything = index.search(vectors[:1], k=100)
    assert everything.ids.tolist() == [list(range(FAR, FAR + 100))]


@EVERY_KIND
@pytest.mark.parametrize("share", [0.003, 0.05, 0.6])
def test_filters(kind: str, share: float, data: "Data") -> None:
    """With little effort, a filter still finds k, of the right ids only, and nearly the right ones."""
    index = built(kind, data)
    if index.efforts:
        index.effort = index.efforts[len(index.efforts) // 2]
    random = np.random.default_rng(1)
    among = IdSet(random.choice(data.ids, size=int(share * len(data.ids)), replace=False))
    hits = index.search(data.near, k=10, among=among)
    wanted = min(10, len(among))
    assert hits.counts.tolist() == [wanted] * len(data.near)
    assert among.contains(hits.ids).all()
    held = among.contains(data.ids)
    truth = data.ids[held][np.argsort(-(data.near @ data.vectors[held].T), axis=1)[:, :wanted]]
    assert recall(hits, truth) > 0.8


@EVERY_KIND
@pytest.mark.parametrize("count", [1, 20, 1500, 2995, 3000])
def test_deleted_ids(kind: str, count: int, data: "Data") -> None:
    index = built(kind, data)
    # What is nearest goes first: the hits must come from behind.
    first = data.nearest(data.near[:1], len(data.ids))[0][:count]
    without = IdSet(first)
    hits = index.search(data.near, k=10, without=without)
    left = min(10, len(data.ids) - count)
    assert hits.ids.shape == (len(data.near), left)
    assert hits.counts.tolist() == [left] * len(data.near)
    assert not without.contains(hits.ids).any()
    both = index.search(data.near, k=10, among=IdSet(data.ids[::2]), without=without)
    assert (both.counts == min(10, len(np.setdiff1d(data.ids[::2], first)))).all()
    assert not without.contains(both.ids).any()
    assert np.isin(both.ids, data.ids[::2]).all()


@pytest.mark.parametrize("kind", ["ivf-rabitq", "ivf-pq"])
def test_scores_of_the_refine_step(kind: str, data: "Data") -> None:
    """They come from 8 bits a number, not from 2: as near to the true ones as those of `sq8`, in the same order."""
    index = built(kind, data)
    for k in (1, 10, 100):
        hits = index.search(data.near, k=k)
        truth = np.take_along_axis(data.near @ data.vectors.T, np.searchsorted(data.ids, hits.ids), axis=1)
        np.testing.assert_allclose(hits.scores, truth, atol=0.01)  # 8 bits over a range of about 2, 32 numbers


@pytest.mark.parametrize(("kind", "candidates"), [("ivf-rabitq", 160), ("ivf-pq", 320)])
def test_one_hit_is_chosen_from_as_many_candidates_as_ten(kind: str, candidates: int, data: "Data") -> None:
    index = built(kind, data)
    one, ten = (index.search(data.near, k=k).ids[:, :1] for k in (1, 10))
    assert one.tolist() == ten.tolist()
    assert [k * index._candidates(k) for k in (1, 10, 20, 3000)] == [
        candidates,
        candidates,
        2 * candidates,
        3000,
    ]
    assert built("ivf-sq8", data)._candidates(1) == 1


def test_deleted_ids_that_are_not_there(data: "Data") -> None:
    index = built("flat", data)
    gone = IdSet(np.array([int(data.ids[-1]) + 5, FAR]))
    same(index.search(data.near, k=3, without=gone), index.search(data.near, k=3))
    same(index.search(data.near, k=3, without=IdSet(np.array([]))), index.search(data.near, k=3))


def test_among_nothing(data: "Data") -> None:
    index = built("ivf-sq8", data)
    for among in (IdSet(np.array([])), IdSet(np.array([FAR]))):
        hits = index.search(data.near, k=3, among=among)
        assert hits.counts.tolist() == [0] * len(data.near)
        assert hits.ids.shape == (len(data.near), 0)


@EVERY_KIND
def test_the_same_seed_gives_the_same_index(kind: str, small: "Data") -> None:
    first = content(FaissIndex.build(kind, small.source, seed=3, threads=1))
    assert content(FaissIndex.build(kind, small.source, seed=3, threads=1)) == first
    if kind.startswith("ivf"):
        assert content(FaissIndex.build(kind, small.source, seed=4, threads=1)) != first


@EVERY_KIND
def test_half_precision_sources(kind: str, small: "Data") -> None:
    """Stored vectors are float16; they are compared as float32."""
    halves = small.vectors.astype(np.float16)
    first = FaissIndex.build(kind, ArraySource(small.ids, halves), threads=1)
    second = FaissIndex.build(kind, ArraySource(small.ids, halves.astype(np.float32)), threads=1)
    assert content(first) == content(second)


@pytest.mark.parametrize(("kind", "is_scanned"), [("flat", True), ("fp16", False), ("hnsw", False), ("ivf-pq", False)])
def test_float32_vectors_are_compared_by_our_own_scan(
    kind: str, is_scanned: bool, small: "Data", monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAISS's own is up to 6 times slower, see `scan`."""
    scanned: list[int] = []

    def watched(flat: Any, queries: Any, *, k: int, positions: Any) -> Any:
        scanned.append(k)
        return flat_search(flat, queries, k=k, positions=positions)

    monkeypatch.setattr("trivium.indexes.faiss_index.flat_search", watched)
    built(kind, small).search(small.near, k=5)
    assert bool(scanned) == is_scanned


# --- adding ----------------------------------------------------------------------------------------------------------


@EVERY_KIND
def test_add(kind: str, data: "Data") -> None:
    index = FaissIndex.build(kind, ArraySource(data.ids[:2500], data.vectors[:2500]), threads=1)
    among, without = IdSet(data.ids[2400:2600]), IdSet(data.ids[2550:])
    assert index.search(data.near, k=200, among=among).counts[0] == 100
    index.add(data.ids[2500:2501], data.vectors[2500:2501])
    index.add(data.ids[2501:], data.vectors[2501:])
    assert len(index) == 3000
    assert index.ids.tolist() == data.ids.tolist()
    if kind.startswith("hnsw"):
        index.effort = 2048
    assert recall(index.search(data.near, k=10), data.nearest(data.near, 10)) >= FLOORS[kind]
    hits = index.search(data.near, k=200, among=among, without=without)  # what was known of the sets is out of date
    assert hits.counts.tolist() == [150] * len(data.near)


def test_add_in_parts_equals_add_at_once(small: "Data") -> None:
    parts = FaissIndex.build("flat", ArraySource(small.ids[:100], small.vectors[:100]))
    parts.add(small.ids[100:], small.vectors[100:])
    assert content(parts) == content(FaissIndex.build("flat", small.source))


def test_add_nothing(small: "Data") -> None:
    index = built("flat", small)
    index.add(np.empty(0, np.int64), np.empty((0, 16), np.float32))
    assert len(index) == 300


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        ([5], np.ones((1, 3)), "ids must be beyond the last id, 7, got 5"),
        ([7], np.ones((1, 3)), "ids must be beyond the last id, 7, got 7"),
        ([9, 8], np.ones((2, 3)), "ids must rise from one to the next"),
        ([8, 8], np.ones((2, 3)), "ids must be unique, 8 occurs 2 times"),
        ([8], np.ones((1, 4)), r"vectors must have shape \(n, 3\), got \(1, 4\)"),
        ([8, 9], np.ones((1, 3)), r"ids must have shape \(1,\), one for each vector, got \(2,\)"),
        ([8], np.full((1, 3), np.nan), "vectors has NaN or infinity in 1 of 1 rows"),
    ],
)
def test_bad_additions(ids: list[int], vectors: Any, message: str) -> None:
    index = FaissIndex.build("flat", ArraySource(np.array([3, 7]), np.eye(3, dtype=np.float32)[:2]))
    with pytest.raises(ValueError, match=message):
        index.add(np.array(ids), vectors)
    assert len(index) == 2


def test_nothing_is_added_to_a_mapped_index(small: "Data", tmp_path: Path) -> None:
    path = tmp_path / "index"
    path.write_bytes(content(built("flat", small)))
    index = FaissIndex.read(path, kind="flat", effort=None, dim=16)
    with pytest.raises(ValueError, match="mapped from its file: to add to it, read it with mapped=False"):
        index.add(small.ids[-1:] + 1, small.vectors[:1])
    writable = FaissIndex.read(path, kind="flat", effort=None, dim=16, mapped=False)
    writable.add(small.ids[-1:] + 1, small.vectors[:1])
    assert len(writable) == 301


# --- files -----------------------------------------------------------------------------------------------------------


@EVERY_KIND
@pytest.mark.parametrize("mapped", [True, False])
def test_write_and_read(kind: str, mapped: bool, small: "Data", tmp_path: Path) -> None:
    index = built(kind, small)
    path = tmp_path / "index"
    path.write_bytes(content(index))
    again = FaissIndex.read(path, kind=kind, effort=index.effort, dim=16, mapped=mapped)
    path.unlink()  # a mapping keeps what it maps
    assert (len(again), again.dim, again.kind, again.effort) == (300, 16, kind, index.effort)
    among = IdSet(small.ids[::3])
    same(again.search(small.near, k=5), index.search(small.near, k=5))
    same(again.search(small.near, k=5, among=among), index.search(small.near, k=5, among=among))
    assert content(again) == content(index)


def test_an_empty_index_in_a_file(tmp_path: Path) -> None:
    source = ArraySource(np.empty(0, np.int64), np.empty((0, 4), np.float32))
    (tmp_path / "index").write_bytes(content(FaissIndex.build("flat", source)))
    for mapped in (True, False):
        index = FaissIndex.read(tmp_path / "index", kind="flat", effort=None, dim=4, mapped=mapped)
        assert len(index) == 0
        assert index.search(np.eye(4, dtype=np.float32), k=3).counts.tolist() == [0] * 4


# --- threads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf-sq8", "ivf-rabitq", "ivf-pq"])
def test_searches_beside_each_other(kind: str, data: "Data") -> None:
    """Two filters and two batch sizes at the same time find what each finds alone."""
    index = built(kind, data)
    filters = [None, IdSet(data.ids[::2]), IdSet(data.ids[1::2]), IdSet(data.ids[::50])]
    alone = [index.search(data.near, k=5, among=among) for among in filters]
    failures: list[BaseException] = []

    def keep_searching(number: int) -> None:
        try:
            with faiss_threads(1 + number % 2):
                for _ in range(10):
                    hits = index.search(data.near, k=5, among=filters[number])
                    assert hits.counts.tolist() == alone[number].counts.tolist()
                    np.testing.assert_allclose(hits.scores, alone[number].scores, atol=1e-5)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=keep_searching, args=(number,)) for number in range(len(filters))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_what_it_shows(small: "Data") -> None:
    assert repr(built("flat", small)) == "FaissIndex of 300 x 16, flat"
    index = built("ivf-sq8", small)
    index.effort = 3
    assert repr(index) == "FaissIndex of 300 x 16, ivf-sq8, nprobe 3"
    assert index.size_bytes == pytest.approx(300 * (16 + 16) + 7 * 64)
    assert not index.is_exact


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_1(k: int, small: "Data") -> None:
    with pytest.raises(ValueError, match=f"k must be at least 1, got {k}"):
        built("flat", small).search(small.near, k=k)


def test_more_wanted_than_there_are(small: "Data") -> None:
    for kind in ("flat", "hnsw", "ivf-sq8"):
        assert built(kind, small).search(small.near[:1], k=10**12).counts.tolist() == [300]


def test_no_queries(small: "Data") -> None:
    for kind in KINDS:
        hits = built(kind, small).search(np.empty((0, 16), np.float32), k=2)
        assert len(hits.ids) == len(hits.counts) == 0


@EVERY_KIND
def test_bad_queries(kind: str, small: "Data") -> None:
    index = built(kind, small)
    with pytest.raises(ValueError, match=r"queries must have shape \(n, 16\), got \(1, 2\)"):
        index.search(np.ones((1, 2), np.float32), k=1)
    with pytest.raises(ValueError, match=r"queries must have shape \(n, 16\), got \(16,\)"):
        index.search(np.ones(16, np.float32), k=1)
    with pytest.raises(ValueError, match="queries has NaN or infinity in 1 of 1 rows, first at row 0"):
        index.search(np.full((1, 16), np.nan, np.float32), k=1)


@pytest.mark.parametrize(
    ("kind", "effort", "message"),
    [
        ("flat", 3, "effort of an index of kind 'flat' must be none, got 3"),
        ("hnsw", None, "effort of an index of kind 'hnsw' must be efSearch, 1 or more, got None"),
        ("ivf-sq8", 0, "effort of an index of kind 'ivf-sq8' must be nprobe, 1 or more, got 0"),
    ],
)
def test_bad_effort(kind: str, effort: int | None, message: str, small: "Data") -> None:
    index = built(kind, small)
    before = index.effort
    with pytest.raises(ValueError, match=message):
        index.effort = effort
    assert index.effort == before


def test_vectors_are_copied() -> None:
    vectors = np.eye(3, dtype=np.float32)
    index = FaissIndex.build("flat", ArraySource(np.arange(3), vectors))
    vectors[:] = 0
    assert index.search(np.eye(3, dtype=np.float32), k=1).scores.tolist() == [[1], [1], [1]]


def test_ids_cannot_be_written_to(small: "Data") -> None:
    with pytest.raises(ValueError, match="read-only"):
        built("flat", small).ids[0] = 3
