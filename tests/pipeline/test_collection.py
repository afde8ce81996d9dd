"""Searches from Python: restrictions, many queries at once; what is asked of the index, and what is told of it."""

import os
import random
from pathlib import Path

import numpy as np
import pytest

from trivium.indexes import Wish
from trivium.pipeline.collection import Collection
from trivium.pipeline.search.query import QueryError
from trivium.pipeline.store.filters import FilterError


def names(hits) -> list[str]:
    return [os.path.basename(hit.path) for hit in hits]


def test_paths_and_where(collection: Collection, media: Path) -> None:
    everything = collection.search(text="x", k=100)
    below = [hit for hit in everything if "/deep/" in hit.path]
    assert collection.search(text="x", k=100, paths=[str(media / "deep")]) == below
    assert collection.search(text="x", k=1, paths=["deep/*"]) == below[:1]
    red = collection.search(text="x", where="caption contains red", k=100)
    assert set(names(red)) == {"red.png", "poem.txt"}
    assert names(collection.search(text="x", where="caption contains red", only="image")) == ["red.png"]
    with pytest.warns(UserWarning, match="no item has metadata 'year'"):
        assert collection.search(text="x", where="year = 2020") == []
    with pytest.raises(FilterError, match="year"):
        collection.search(text="x", where="year >")


def test_k_hits_that_meet_the_filter_whenever_they_exist(tmp_path: Path, space) -> None:
    """Also with an index that looks at a few lists only, and a filter that the nearest do not meet."""
    rng = random.Random(7)
    media = tmp_path / "m"
    media.mkdir()
    years = [rng.choice([2019, 2020, 2021, 2022]) for _ in range(800)]
    for number in range(800):
        (media / f"{number:03}.md").write_text(f"note {number}")
    (tmp_path / "t.csv").write_text(
        "path,year\n" + "".join(f"{media}/{number:03}.md,{year}\n" for number, year in enumerate(years))
    )
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(media, metadata=tmp_path / "t.csv", index=Wish(kind="ivf-flat", recall=0.5))
    assert collection.info().indexes["text"].kind == "ivf-flat"
    for year in (2019, 2021):
        hits = collection.search(text="a query", where=f"year = {year}", k=60)
        assert len(hits) == 60
        assert {hit.metadata["year"] for hit in hits} == {year}
        assert len(collection.search(text="q", where=f"year = {year}", k=800)) == years.count(year)
    (one,) = collection.search(text="a query", where="name = 123.md", k=5)
    assert names([one]) == ["123.md"]


def test_search_many_is_search(collection: Collection, media: Path) -> None:
    texts = ["x", "A red sign.", (2, "y"), ["a", (-1, "b")]]
    together = collection.search_many(text=texts, k=4)
    for text, hits in zip(texts, together, strict=True):
        alone = collection.search(text=text, k=4)
        assert names(hits) == names(alone)
        np.testing.assert_allclose([h.score for h in hits], [h.score for h in alone], atol=1e-6)
    mixed = collection.search_many(
        text=["x", None], image=[None, media / "red.png"], audio=[media / "low.wav"] * 2, k=7
    )
    assert names(mixed[0]) == names(collection.search(text="x", audio=media / "low.wav", k=7))
    assert names(mixed[1]) == names(collection.search(image=media / "red.png", audio=media / "low.wav", k=7))
    only = collection.search_many(text=["x", "y"], only="audio", where="name = low.wav")
    assert [names(hits) for hits in only] == [["low.wav"], ["low.wav"]]
    assert collection.search_many(text=[]) == []
    assert collection.search_many() == []


def test_a_vector_of_the_space_finds_what_the_item_finds(collection: Collection, media: Path) -> None:
    texts = ["x", "A red sign."]
    vectors = 3 * collection.space.encode("text", texts)
    found = collection.search_vectors(vectors, k=4)
    for text, hits in zip(texts, found, strict=True):
        assert names(hits) == names(collection.search(text=text, k=4))
    (only,) = collection.search_vectors(vectors[:1], only="audio", where="name = low.wav")
    assert names(only) == ["low.wav"]
    assert collection.search_vectors(vectors[:0]) == []


def test_vectors_that_cannot_be_searched_are_told(collection: Collection) -> None:
    (vector,) = collection.space.encode("text", ["x"])
    with pytest.raises(QueryError, match=rf"vectors must have shape \(n, {len(vector)}\), got \({len(vector)},\)"):
        collection.search_vectors(vector)
    with pytest.raises(QueryError, match="vector 1 has no direction: it is zero, or has NaN or infinity"):
        collection.search_vectors(np.stack([vector, 0 * vector]))
    with pytest.raises(QueryError, match="vector 0 has no direction"):
        collection.search_vectors(np.stack([np.nan * vector]))


def test_search_many_in_more_than_one_batch(collection: Collection, space) -> None:
    texts = [f"query {number}" for number in range(75)]
    found = collection.search_many(text=texts, k=1)
    assert space.calls == ["text"] * 75
    assert [names(hits) for hits in found] == [names(collection.search(text=text, k=1)) for text in texts]


def test_search_many_of_what_cannot_be_asked(collection: Collection, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="got 2 of text, 1 of image"):
        collection.search_many(text=["a", "b"], image=[None])
    with pytest.raises(QueryError, match="empty query"):
        collection.search_many(text=["a", None])
    with pytest.raises(QueryError, match=r"image of the query cannot be used .*gone\.png"):
        collection.search_many(text=["a", None], image=[None, tmp_path / "gone.png"])


def test_what_is_asked_of_the_index_is_kept_and_told(collection: Collection, media: Path) -> None:
    assert collection.info().indexes == {}
    before = collection.search(text="x", k=7)
    collection.add(media, index=Wish(kind="sq8", recall=0.9))
    told = collection.info()
    assert told.wish == Wish(kind="sq8", recall=0.9)
    assert {modality: file.kind for modality, file in told.indexes.items()} == dict.fromkeys(
        ("text", "image", "audio"), "sq8"
    )
    assert names(collection.search(text="x", k=7)) == names(before)
    collection.rebuild(index=Wish(kind="flat"))
    assert {file.kind for file in collection.info().indexes.values()} == {"flat"}
    assert names(collection.search(text="x", k=7)) == names(before)
    collection.rebuild(index=Wish())
    assert collection.info().indexes == {}  # so few need none
    assert names(collection.search(text="x", k=7)) == names(before)


def test_compact_export_and_import(collection: Collection, tmp_path: Path, media: Path, space) -> None:
    collection.remove([media / "deep"])
    assert collection.compact().vectors_removed == 3  # two items, one caption
    before = collection.search(text="x", k=10)
    count = collection.export(tmp_path / "out.npy")
    assert count == 6  # five items, one caption
    copy = Collection.open(tmp_path / "copy", space=space)
    copy.import_vectors(tmp_path / "out.npy")
    assert copy.search(text="x", k=10) == before


def test_migrate(collection: Collection, make_space) -> None:
    other = make_space("2")
    done = collection.migrate(other)
    assert (done.is_done, done.encoded) == (True, 9)
    assert collection.info().space == other.space
    assert len(collection.search(text="x", k=10)) == 7


def test_a_slip_of_the_pen_in_a_filter_is_told(collection: Collection, media: Path) -> None:
    for asked in (
        lambda: collection.search(text="a sign", where="yaer > 2000"),
        lambda: collection.search_many(text=["a", "b"], where="yaer > 2000"),
    ):
        with pytest.warns(UserWarning, match="no hits, and no item has metadata 'yaer'") as told:
            assert not any(asked())
        assert [warning.filename for warning in told] == [__file__]
