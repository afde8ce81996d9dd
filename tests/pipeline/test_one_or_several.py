"""Whatever takes several takes one for what it is, at every public door, or says what to write."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import trivium
from trivium.fusion import BlockClassifier, FusedClassifier, ImaginedFeatures, read_frame
from trivium.pipeline.collection import Collection
from trivium.pipeline.search.query import QueryError, QueryPart


def test_a_text_is_one_path(collection: Collection, media: Path, space) -> None:
    count = len(collection)
    assert collection.add(str(media)).unchanged == count
    assert collection.add(media).unchanged == count
    assert collection.remove(str(media / "red.png")) == 1  # and not "/", its first character
    assert collection.remove(media / "blue.jpg") == 1
    assert len(collection) == count - 2


@pytest.mark.parametrize(
    "item", ["abc", "red.png", Path("red.png"), "bytes", "picture", "pixels", "sound"], ids=lambda item: str(item)
)
def test_one_item_has_one_vector(space, media: Path, monkeypatch, item) -> None:
    monkeypatch.chdir(media)
    made = {
        "bytes": Path("red.png").read_bytes(),
        "picture": np.asarray(Image.open("red.png").convert("RGB")),
        "pixels": np.zeros((8, 8, 3), np.uint8),
        "sound": (np.ones(2_000, np.float32), 8_000),
    }
    modality = "text" if item == "abc" else "audio" if item == "sound" else "image"
    one = made.get(str(item), item)
    vector = space.encode(modality, one)
    assert vector.shape == (space.space.dim,)
    assert np.array_equal(space.encode(modality, [one]), vector[None])
    assert space.encode(modality, [one, one]).shape == (2, space.space.dim)


def test_one_item_that_cannot_be_encoded(space) -> None:
    with pytest.raises(trivium.DecodeError):
        space.encode("text", "")
    with pytest.raises(ValueError, match="on_error is for several items"):
        space.encode("text", "", on_error=lambda *_: None)
    for wrong in (None, {"a": 1}):
        with pytest.raises(TypeError, match="items must be one item or an iterable of items"):
            space.encode("text", wrong)
    assert space.encode("text", iter(["a", "b"])).shape == (2, space.space.dim)
    assert space.encode("text", []).shape == (0, space.space.dim)


def test_search_many_of_one(collection: Collection, media: Path) -> None:
    for given in (
        {"text": "cat"},
        {"text": (2.0, "cat")},
        {"image": media / "red.png"},
        {"text": "cat", "image": None},
    ):
        (hits,) = collection.search_many(**given)
        assert hits == collection.search(**given)
    (hits,) = collection.search_many(image=(media / "red.png").read_bytes())
    assert hits[0].path == str(media / "red.png")
    assert len(collection.search_many(text=["cat", "dog"])) == 2
    assert len(collection.search_many(text=iter(["cat", "dog"]))) == 2
    with pytest.raises(TypeError, match="text must be one item or an iterable"):
        collection.search_many(text={"a": 1})


@pytest.mark.parametrize(
    "text", [("a", "b"), b"ab", Path("a"), 7, iter("ab"), ["a", None], {"a": 1}], ids=lambda text: type(text).__name__
)
def test_what_no_text_is(collection: Collection, text) -> None:
    with pytest.raises(QueryError, match="text must be a text, a pair"):
        collection.search(text=text)


@pytest.mark.parametrize("given", [{"text": ""}, {"image": ""}, {"image": b""}, {"audio": [(1.0, "")]}], ids=str)
def test_empty_queries(collection: Collection, given) -> None:
    with pytest.raises(QueryError, match="empty query"):
        collection.search(**given)


def test_patterns(collection: Collection, media: Path) -> None:
    for paths in ("*.png", ["*.png"], media / "red.png", str(media / "red.png"), iter(["*.png"])):
        assert [hit.path for hit in collection.search(text="x", paths=paths)] == [str(media / "red.png")]
    (hits,) = collection.search_many(text="x", paths="*.png")
    assert [hit.path for hit in hits] == [str(media / "red.png")]
    vector = collection.space.encode("text", "x")
    assert collection.search_vectors(vector[None], paths="*.png")[0][0].path == str(media / "red.png")
    with pytest.raises(QueryError, match="vectors must have shape"):
        collection.search_vectors(vector)


def test_parts(collection: Collection) -> None:
    part = QueryPart(modality="text", item="cat")
    for wrong in (part, [part], "cat", ["cat"]):
        with pytest.raises(TypeError, match=r"queries must be a list of queries, .* write \[\[part"):
            collection.search_parts(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="lists of QueryPart"):
        collection.search_parts([["cat"]])  # type: ignore[list-item]
    (hits,) = collection.search_parts([[part]], k=2)
    assert [e.reason for e in collection.explain_parts(part, hits[0])] == [
        e.reason for e in collection.explain_parts([part], hits[:1])
    ]
    with pytest.raises(TypeError, match="hits must be what a search gave"):
        collection.explain_parts(part, "hits")  # type: ignore[arg-type]


@pytest.mark.parametrize("empty", ["", b""])
def test_empty_paths_are_refused_everywhere(collection: Collection, tmp_path: Path, monkeypatch, empty) -> None:
    monkeypatch.chdir(tmp_path)
    count = len(collection)
    for refused in (
        lambda: collection.add(empty),
        lambda: collection.add([tmp_path / "media", empty]),
        lambda: collection.add(tmp_path / "media", metadata=empty),
        lambda: collection.remove(empty),
        lambda: collection.remove([str(tmp_path / "media"), empty]),
        lambda: collection.search(text="x", paths=empty),
        lambda: collection.search(text="x", paths=[empty]),
        lambda: collection.export(empty),
        lambda: collection.backup(empty),
        lambda: collection.import_vectors(empty),
        lambda: collection.migrate(empty),
        lambda: Collection.open(empty),
        lambda: Collection.open(tmp_path / "new", space=empty),
        lambda: trivium.load_space(empty),
        lambda: trivium.load_classifier(empty),
        lambda: read_frame(empty),
        lambda: FusedClassifier.load(empty),
        lambda: ImaginedFeatures(empty).fit(None),
    ):
        with pytest.raises(ValueError, match=r"empty|got the bytes"):  # of patterns FilterError, which is one
            refused()
    assert len(collection) == count
    assert sorted(path.name for path in tmp_path.iterdir()) == ["collection", "media"]


def test_the_command_line_is_words(capsys) -> None:
    assert trivium.main("spaces") == 0
    assert "trivium-base" in capsys.readouterr().out


def test_views_are_lists() -> None:
    table, labels = np.eye(4), ["a", "b", "a", "b"]
    for wrong in ("22", 4):
        with pytest.raises(TypeError, match=r"views\['a'\] must be a list of widths"):
            BlockClassifier(blocks={"a": (0, 4)}, views={"a": wrong}).fit(table, labels)  # type: ignore[dict-item]
