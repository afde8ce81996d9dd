"""Query parts: weights, signs, and what cannot be asked."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trivium.encoders.base import Modality
from trivium.encoders.sandbox import pool as sandbox
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.pipeline.collection import Collection
from trivium.pipeline.search.query import QueryError, QueryPart, parse_part, query_vectors


@pytest.mark.parametrize(
    ("written", "item", "weight"),
    [
        ("a dog", "a dog", 1.0),
        ("-a crowd", "a crowd", -1.0),
        ("2:beach", "beach", 2.0),
        ("-0.5:crowd", "crowd", -0.5),
        ("+3: sea", "sea", 3.0),
        (".5:sea", "sea", 0.5),
        ("1:10:30 train", "10:30 train", 1.0),
        ("note: buy milk", "note: buy milk", 1.0),
        ("--", "-", -1.0),
    ],
)
def test_parse_part(written: str, item: str, weight: float) -> None:
    assert parse_part("text", written) == QueryPart(modality="text", item=item, weight=weight)


@pytest.mark.parametrize("written", ["", "   ", "-", "2:", "-1:  "])
def test_empty_parts_are_refused(written: str) -> None:
    with pytest.raises(QueryError, match="empty query"):
        parse_part("text", written)


def test_vector_of_several_parts(space) -> None:
    a, b = space.encode("text", ["a", "b"])
    vector = query_vectors(space, [[parse_part("text", "2:a"), parse_part("text", "-b")]])[0]
    expected = 2 * a - b
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)


def test_no_parts(space) -> None:
    with pytest.raises(QueryError, match="empty query"):
        query_vectors(space, [[]])


def test_parts_that_cancel_out(space) -> None:
    with pytest.raises(QueryError, match="cancel out"):
        query_vectors(space, [[parse_part("text", "a"), parse_part("text", "-a")]])


def test_what_is_there_of_a_cut_file_is_asked_for_with_a_warning(space, tmp_path, picture, caplog) -> None:
    whole = picture(tmp_path / "whole.jpg", size=(640, 480))
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:-2])
    with DecodeSandbox(1) as sandbox:
        expected, found = (
            query_vectors(space, [[QueryPart(modality="image", item=str(tmp_path / name))]], sandbox=sandbox)
            for name in ("whole.jpg", "cut.jpg")
        )
    np.testing.assert_array_equal(found, expected)
    assert caplog.messages == [
        "note on the image of the query: the file is cut off behind its last pixel; all of the picture is there"
    ]


def test_file_that_cannot_be_used(space, tmp_path) -> None:
    (tmp_path / "x.jpg").write_text("text")
    with pytest.raises(QueryError, match=r"image of the query cannot be used .*x\.jpg.*not a picture"):
        query_vectors(space, [[QueryPart(modality="image", item=str(tmp_path / "x.jpg"))]])
    with pytest.raises(QueryError, match=r"gone\.ogg.*gone"):
        query_vectors(space, [[QueryPart(modality="audio", item=str(tmp_path / "gone.ogg"))]])


@pytest.fixture
def box() -> Iterator[DecodeSandbox]:
    with DecodeSandbox(1) as box:
        yield box


def test_files_are_decoded_in_the_sandbox_to_the_same(space, media: Path, box: DecodeSandbox) -> None:
    items: list[tuple[Modality, Any]] = [
        ("image", media / "red.png"),
        ("image", str(media / "blue.jpg")),
        ("image", (media / "deep" / "green.webp").read_bytes()),
        ("image", np.zeros((8, 8, 3), np.uint8)),
        ("audio", media / "low.wav"),
        ("audio", (np.ones(1000, np.float32), 8000)),
        ("text", "red"),
    ]
    queries = [[QueryPart(modality=modality, item=item)] for modality, item in items]
    np.testing.assert_array_equal(query_vectors(space, queries, sandbox=box), query_vectors(space, queries))
    assert len(box.pids) == 1


def test_a_file_that_crashes_the_decoder_is_a_query_that_cannot_be_used(space, media: Path) -> None:
    script = (
        "import os, socket, struct; link = socket.socket(fileno=0); ready = b'{\"ready\": true}'\n"
        "link.sendall(struct.pack('<I', len(ready)) + ready); link.recv(1); os.abort()"
    )
    part = QueryPart(modality="image", item=media / "red.png")
    with (
        DecodeSandbox(1, command=[sys.executable, "-I", "-S", "-c", script]) as box,
        pytest.raises(QueryError, match=r"cannot be used .*red\.png.*the decoder crashed on it \(signal 6, SIGABRT\)"),
    ):
        query_vectors(space, [[part]], sandbox=box)


def test_a_collection_keeps_the_process_that_decodes_until_it_is_closed(
    collection: Collection, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[DecodeSandbox] = []

    class Noted(DecodeSandbox):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(sandbox, "DecodeSandbox", Noted)
    collection.search(text="red", k=1)
    assert made == []
    pids = set()
    for name in ("red.png", "blue.jpg"):
        (hit,) = collection.search(image=media / name, k=1)
        assert Path(hit.path).name == name
        pids |= {pid for box in made for pid in box.pids}
    (box,) = made
    assert set(box.pids) == pids
    assert len(pids) == 1
    collection.search(audio=media / "low.wav", k=1)  # which takes a worker of its own, of the same sandbox
    assert made == [box]
    collection.close()
    assert box.pids == []


def test_python_search_takes_weights_and_lists(collection: Collection, media) -> None:
    one = collection.search(text="Roses", k=7)
    assert [hit.path for hit in collection.search(text=(2, "Roses"), k=7)] == [hit.path for hit in one]
    several = collection.search(text=["Roses", (-0.5, "tone")], image=media / "red.png", k=7)
    assert len(several) == 7
    assert several != one
