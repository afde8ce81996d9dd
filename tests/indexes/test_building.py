"""Building for a wish: chosen, tuned, built anew when the recall is missed, and honest about what is out of reach."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

from trivium.indexes import ArraySource, FaissIndex, Wish, build_index, ground_truth, recall_at_10
from trivium.indexes import choice as choosing

if TYPE_CHECKING:
    from tests.indexes.conftest import Data


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 3,000 vectors were many."""
    monkeypatch.setattr(choosing, "_PATIENCE_MS", 1e-6)


def test_a_small_collection(small: "Data") -> None:
    seen: list[tuple[int, int]] = []
    built = build_index(
        small.source, wish=Wish(), queries={"image": small.near}, progress=lambda *done: seen.append(done)
    )
    assert built.index.kind == built.choice.kind == "flat"
    assert built.measurement.recall == {"image": 1.0}
    assert built.notes == ()
    assert seen == [(0, 300), (300, 300)]
    assert built.index.search(small.near, k=3).ids.tolist() == small.nearest(small.near, 3).tolist()


@pytest.mark.usefixtures("impatient")
def test_a_large_collection(data: "Data") -> None:
    queries = {"image": data.near, "text": data.aside}
    built = build_index(data.source, wish=Wish(recall=0.9), queries=queries, threads=1)
    assert built.index.efforts
    assert built.index.effort == built.measurement.effort
    assert built.measurement.reaches(0.9)
    assert built.notes == ()
    truth = ground_truth(data.source, queries)
    for modality, vectors in queries.items():
        assert built.measurement.recall[modality] == recall_at_10(built.index.search(vectors, k=10), truth[modality])


@pytest.mark.usefixtures("impatient")
def test_the_next_kind_when_the_recall_is_missed(data: "Data", monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 8 bits were thought to suffice for any recall."""
    monkeypatch.setitem(choosing._RECALL_AT_MOST, "ivf-sq8", 0.996)
    monkeypatch.setattr(choosing, "_MAPPED_FIRST", ("ivf-sq8",))
    built = build_index(data.source, wish=Wish(recall=0.995), queries={"image": data.near}, threads=1)
    assert built.index.kind == "ivf-fp16"
    assert built.measurement.reaches(0.995)
    assert len(built.notes) == 1
    assert built.notes[0].startswith("ivf-sq8 misses recall 0.995: recall@10 image 0.9")
    assert built.choice.reason == f"{built.index.kind}: {built.notes[0]}"


def test_a_recall_out_of_reach(data: "Data") -> None:
    """Someone who asks for a kind gets that kind."""
    built = build_index(data.source, wish=Wish(kind="sq8", recall=1.0), queries={"image": data.near})
    assert built.index.kind == "sq8"
    assert len(built.notes) == 2
    assert built.notes[0].startswith("sq8 misses recall 1: recall@10 image 0.9")
    assert built.notes[1] == "recall 1 is out of reach: sq8 is the best that was tried"


@pytest.mark.usefixtures("impatient")
def test_at_most_two_rebuilds_and_the_best_is_kept(data: "Data", monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    build = FaissIndex.build

    def watched(kind: str, *args: object, **named: object) -> FaissIndex:
        made.append(kind)
        return build(kind, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(FaissIndex, "build", watched)
    monkeypatch.setattr("trivium.indexes.building.alternatives", lambda *_: ("hnsw-sq8", "sq8", "flat"))
    monkeypatch.setattr(choosing, "_RECALL_AT_MOST", dict.fromkeys(choosing._RECALL_AT_MOST, 1.0))
    monkeypatch.setattr(choosing, "_MAPPED_FIRST", ("ivf-sq8",))
    built = build_index(data.source, wish=Wish(recall=1.0), queries={"image": data.near}, threads=1)
    assert made == ["ivf-sq8", "hnsw-sq8", "sq8"]
    assert [note.split()[0] for note in built.notes] == ["ivf-sq8", "hnsw-sq8", "sq8", "recall"]
    worst = max(float(note.split("image ")[1].split()[0]) for note in built.notes[:3])
    assert built.measurement.recall["image"] == pytest.approx(worst, abs=5e-4)


def test_a_latency_out_of_reach(small: "Data") -> None:
    built = build_index(small.source, wish=Wish(kind="flat", latency_ms=1e-6), queries={"image": small.near})
    assert len(built.notes) == 1
    assert built.notes[0].endswith("ms on this machine, more than the 1e-06 ms asked for")


@pytest.mark.usefixtures("impatient")
def test_without_queries(data: "Data") -> None:
    """Nothing is measured, nothing is missed: full effort."""
    built = build_index(data.source, wish=Wish(), queries={"text": data.near[:0]}, threads=1)
    assert built.index.effort == built.index.efforts[-1]
    assert built.measurement.recall == {}
    assert built.notes == ()


def test_nothing_to_index() -> None:
    source = ArraySource(np.empty(0, np.int64), np.empty((0, 4), np.float32))
    built = build_index(source, wish=Wish(), queries={"image": np.eye(4, dtype=np.float32)})
    assert len(built.index) == 0
    assert built.notes == ()


def test_queries_of_another_width(small: "Data") -> None:
    with pytest.raises(ValueError, match=r"queries must have shape \(n, 16\), got"):
        build_index(small.source, wish=Wish(kind="sq8"), queries={"image": np.eye(4, dtype=np.float32)})
