"""Imported vectors: nothing lost or doubled, nothing damaged or of another space gets in, no reason is lost."""

import hashlib
import json
import os
import random
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trivium.encoders.base import Space, unit_rows
from trivium.pipeline.collection import Collection
from trivium.pipeline.records import ContentKey, NewItem, StoredItem
from trivium.pipeline.search.retrieval import Hit, Retrieval
from trivium.pipeline.store.database import CollectionError, CollectionLockedError
from trivium.pipeline.store.filters import Filter
from trivium.pipeline.store.locking import writer_lock
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import Writer, writing
from trivium.pipeline.upkeep import importing, vector_files
from trivium.pipeline.upkeep.compaction import compact
from trivium.pipeline.upkeep.exporting import export, load_pyarrow
from trivium.pipeline.upkeep.importing import IMPORTED, Imported, RowProblem, import_vectors
from trivium.pipeline.upkeep.vector_rows import unit_vectors

pa, pq = load_pyarrow()
STUB = Space(name="stub", dim=16, revision="1")
SMALL = Space(name="s", dim=4, revision="r")
FORMATS = ("x.parquet", "x.npy")
QUERIES = unit_rows(np.random.default_rng(0).normal(size=(5, 16)))


def hits(store: Store, **restricted: Any) -> list[list[Hit]]:
    return Retrieval(store).search(QUERIES, k=50, filter=Filter(**restricted))


def without_ids(store: Store) -> list[tuple[Any, ...]]:
    """All that is recorded of the items but their ids and fingerprints."""
    items: Sequence[StoredItem] = sorted(store.items(), key=lambda item: item.path)
    return [(i.path, i.modality, i.caption, i.metadata, sorted(i.contents.items())) for i in items]


def damaged(data: bytes, position: int, rng: random.Random) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.fixture
def rich(collection: Collection) -> Store:
    """The stub collection, with an odd path and metadata."""
    store = Store(collection.folder)
    odd = ContentKey("image", b"o" * 32)
    with writing(store) as writer:
        writer.set_metadata({1: ('{"gpslatitude":1.5,"tags":["a","b"],"year":2020}', None)})
        item = NewItem(
            path=os.fsdecode(b"/m/odd-\xff.png"), modality="image", fingerprint="f", contents={"content": odd}
        )
        writer.commit([item], [odd], unit_rows(np.ones((1, 16))))
    return store


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "new", STUB, source="stub")


@pytest.fixture
def small(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "small", SMALL, source="s")


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write a table as other programs do."""

    def write(rows: Sequence[dict[str, Any]], vectors: Any, *, suffix: str = ".npy") -> Path:
        target = tmp_path / f"foreign{suffix}"
        if suffix == ".npy":
            np.save(target, np.asarray(vectors), allow_pickle=False)
            target.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            table = pa.Table.from_pylist(list(rows))
            pq.write_table(table.append_column("vector", vectors), target)
        return target

    return write


# Our own exports.


@pytest.mark.parametrize("rows_at_once", [1, 100])
@pytest.mark.parametrize("name", FORMATS)
def test_an_export_makes_an_equal_collection(
    rich: Store, empty: Store, tmp_path: Path, name: str, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_files, "CHUNK_ROWS", rows_at_once)
    count = export(rich, tmp_path / name)
    told: list[tuple[int, int]] = []
    done = import_vectors(empty, tmp_path / name, progress=lambda rows, total: told.append((rows, total)))
    assert done == Imported(rows=count, added=8, vectors=10)
    assert told[-1] == (count, count)
    assert len(told) == -(-count // rows_at_once)
    assert without_ids(empty) == without_ids(rich)
    for restricted in ({}, {"only": "image"}, {"where": "year = 2020 and gpslatitude > 1"}):
        expected, found = hits(rich, **restricted), hits(empty, **restricted)
        assert [[hit.path for hit in each] for each in found] == [[hit.path for hit in each] for each in expected]
        for one, other in zip(chain.from_iterable(found), chain.from_iterable(expected), strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-6)
            assert (one.caption, one.matched, one.metadata) == (other.caption, other.matched, other.metadata)


@pytest.mark.parametrize("name", FORMATS)
def test_importing_twice_changes_nothing(rich: Store, empty: Store, tmp_path: Path, name: str) -> None:
    count = export(rich, tmp_path / name)
    import_vectors(empty, tmp_path / name)
    generation, shards = empty.generation, empty.shards()
    assert import_vectors(empty, tmp_path / name) == Imported(rows=count, unchanged=8, known=count)
    assert (empty.generation, empty.shards()) == (generation, shards)
    assert import_vectors(rich, tmp_path / name) == Imported(rows=count, unchanged=8, known=count)


def test_a_part_that_was_taken_in_before_is_not_doubled(rich: Store, empty: Store, tmp_path: Path) -> None:
    export(rich, tmp_path / "part.npy", filter=Filter(only="image"))
    count = export(rich, tmp_path / "x.npy")
    part = import_vectors(empty, tmp_path / "part.npy")
    assert part == Imported(rows=5, added=4, vectors=5)
    done = import_vectors(empty, tmp_path / "x.npy")
    assert done == Imported(rows=count, added=4, unchanged=4, vectors=5, known=5)
    assert without_ids(empty) == without_ids(rich)


def test_the_next_index_run_encodes_nothing(
    collection: Collection, media: Path, tmp_path: Path, make_space: Callable[..., Any]
) -> None:
    export(Store(collection.folder), tmp_path / "x.npy")
    space = make_space()
    with Collection.open(tmp_path / "new", space=space) as new:
        assert new.import_vectors(tmp_path / "x.npy").added == 7
        states = Store(new.folder).states().values()
        assert {state.fingerprint for state in states} == {IMPORTED}
        summary = new.add(media)
        assert space.calls == []
        assert (summary.unchanged, summary.added, summary.changed, len(summary.skipped)) == (7, 0, 0, 0)
        assert without_ids(Store(new.folder)) == without_ids(Store(collection.folder))


@pytest.mark.parametrize("suffix", [".npy", ".jsonl"])
def test_every_flip_in_an_npy_export_is_noticed(rich: Store, empty: Store, tmp_path: Path, suffix: str) -> None:
    export(rich, tmp_path / "x.npy")
    file = tmp_path / f"x{suffix}"
    data, seed = file.read_bytes(), 1
    rng = random.Random(seed)
    for position in [0, len(data) - 1, *rng.sample(range(len(data)), 60)]:
        file.write_bytes(damaged(data, position, rng))
        with pytest.raises(CollectionError, match=r"is not what was exported, by the SHA-256|is damaged|cannot import"):
            import_vectors(empty, tmp_path / "x.npy")
    assert empty.generation == 0, f"seed {seed}"
    file.write_bytes(data[:-10])
    with pytest.raises(CollectionError, match="cannot import"):
        import_vectors(empty, tmp_path / "x.npy")


def flips_that_got_in(rich: Store, folder: Path, positions: Callable[[bytes], Sequence[int]], seed: int) -> list[int]:
    """Flip a bit at each position of a Parquet export; return where it changed what was taken in."""
    export(rich, folder / "x.parquet")
    data = (folder / "x.parquet").read_bytes()
    expected, expected_hits, rng = without_ids(rich), hits(rich), random.Random(seed)
    silent = []
    store = Store.create(folder / "flip", STUB, source="stub")
    for position in positions(data):
        (folder / "x.parquet").write_bytes(damaged(data, position, rng))
        try:
            import_vectors(store, folder / "x.parquet")
        except CollectionError:
            assert store.generation == 0
            continue
        if without_ids(store) != expected or hits(store) != expected_hits:
            silent.append(position)
        store.close()
        store = Store.create(folder / f"flip-{position}", STUB, source="stub")
    return silent


def test_no_flip_in_a_parquet_export_gets_in(rich: Store, tmp_path: Path) -> None:
    seed = 2

    def some(data: bytes) -> list[int]:
        return random.Random(seed).sample(range(len(data)), 50)

    assert flips_that_got_in(rich, tmp_path, some, seed) == [], f"seed {seed}"


@pytest.mark.slow
def test_no_flip_anywhere_in_a_parquet_export_gets_in(rich: Store, tmp_path: Path) -> None:
    assert flips_that_got_in(rich, tmp_path, lambda data: range(len(data)), 3) == []


def test_flips_in_page_data_are_noticed_by_the_pages_checksums(rich: Store, empty: Store, tmp_path: Path) -> None:
    export(rich, tmp_path / "x.parquet")
    data = (tmp_path / "x.parquet").read_bytes()
    column = pq.ParquetFile(tmp_path / "x.parquet").metadata.row_group(0).column(8)  # vectors: nothing else would tell
    assert column.path_in_schema.startswith("vector")
    last = column.data_page_offset + column.total_compressed_size - 1
    for position in range(last - 200, last + 1):
        (tmp_path / "x.parquet").write_bytes(damaged(data, position, random.Random(position)))
        with pytest.raises(CollectionError, match="damaged or cannot be read"):
            import_vectors(empty, tmp_path / "x.parquet")


def test_an_export_that_another_program_changed_is_refused(rich: Store, empty: Store, tmp_path: Path) -> None:
    """It still names the space, and its pages have checksums that fit."""
    export(rich, tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    pq.write_table(table.slice(1), tmp_path / "x.parquet", write_page_checksum=True)
    with pytest.raises(CollectionError, match=r"its rows are not what was exported, by the SHA-256 in it"):
        import_vectors(empty, tmp_path / "x.parquet")


def test_an_export_with_columns_of_other_types_is_refused(rich: Store, empty: Store, tmp_path: Path) -> None:
    export(rich, tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    ids = table["id"].cast(pa.duration("s"))
    pq.write_table(table.set_column(0, "id", ids), tmp_path / "x.parquet", write_page_checksum=True)
    with pytest.raises(CollectionError, match=r"its columns are not of the types that were exported"):
        import_vectors(empty, tmp_path / "x.parquet")


def test_another_space_is_refused_with_both_names(rich: Store, small: Store, tmp_path: Path) -> None:
    for name in FORMATS:
        export(rich, tmp_path / name)
        for assume in (False, True):
            with pytest.raises(
                CollectionError, match=r"of space 'stub' \(revision 1\), those of .* 's' \(revision r\)"
            ):
                import_vectors(small, tmp_path / name, assume_space=assume)


def test_a_newer_export_is_refused(rich: Store, empty: Store, tmp_path: Path) -> None:
    export(rich, tmp_path / "x.npy")
    about = json.loads((tmp_path / "x.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps(about | {"trivium.format": "2"}))
    with pytest.raises(CollectionError, match=r"has format '2', this Trivium reads format '1'; install a newer"):
        import_vectors(empty, tmp_path / "x.npy")
    (tmp_path / "x.json").write_text(json.dumps(about | {"trivium.space": {"name": "stub"}}))
    with pytest.raises(CollectionError, match=r"x\.json: it is damaged, what it says of its space is \{'name'"):
        import_vectors(empty, tmp_path / "x.npy")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(CollectionError, match=r"x\.json: it is damaged, Expecting"):
        import_vectors(empty, tmp_path / "x.npy")
    (tmp_path / "x.json").write_text(" " * 2_000_000)
    with pytest.raises(CollectionError, match=r"x\.json: it has more than 1,048,576 bytes"):
        import_vectors(empty, tmp_path / "x.npy")


# Tables of other programs.


def test_a_file_that_names_no_space_is_taken_on_the_callers_word(
    small: Store, written: Callable[..., Path], tmp_path: Path
) -> None:
    source = written(
        [{"path": "a.png", "modality": "image"}, {"path": "/m/b.wav", "modality": "audio"}], np.eye(2, 4) * 5
    )
    with pytest.raises(CollectionError, match=r"names no space, .* If they were made with 's' \(revision r\), say so"):
        import_vectors(small, source)
    assert import_vectors(small, source, assume_space=True) == Imported(rows=2, added=2, vectors=2)
    assert [item.path for item in small.items()] == [str(tmp_path / "a.png"), "/m/b.wav"]
    (found,) = Retrieval(small).search(np.eye(1, 4, dtype=np.float32), k=1)
    assert (found[0].path, found[0].score) == (str(tmp_path / "a.png"), 1.0)


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float16()),
        pa.list_(pa.float32()),
        pa.list_(pa.float64()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float16(), 4),
        pa.list_(pa.float64(), 4),
    ],
    ids=str,
)
def test_parquet_of_other_programs(small: Store, tmp_path: Path, kind: Any) -> None:
    numbers = np.eye(3, 4).astype(kind.value_type.to_pandas_dtype())
    caption = "a red sign"
    table = pa.table(
        {
            "vector": pa.array(list(numbers), kind),
            "modality": pa.array(["image", "image", "audio"]).dictionary_encode(),
            "role": ["content", "caption", None],
            "path": pa.array(["sub/../a.png", "a.png", "/m/b.wav"], pa.large_string()),
            "caption": [caption, caption, None],
            "metadata": ['{"year": 2020}', '{"year": 2020}', None],
            "sha256": pa.array([b"a" * 32, None, b"b" * 32], pa.binary(32)),
            "other": [1, 2, 3],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    assert import_vectors(small, tmp_path / "t.parquet", assume_space=True) == Imported(rows=3, added=2, vectors=3)
    first, second = small.items()
    assert (first.path, first.caption, first.metadata) == (str(tmp_path / "a.png"), caption, '{"year":2020}')
    assert first.contents == {
        "content": ContentKey("image", b"a" * 32),
        "caption": ContentKey("text", hashlib.sha256(caption.encode()).digest()),
    }
    assert second.contents == {"content": ContentKey("audio", b"b" * 32)}
    for row, path in ((0, first.path), (1, first.path), (2, second.path)):
        (found,) = Retrieval(small).search(np.eye(3, 4, dtype=np.float32)[row : row + 1], k=1)
        assert (found[0].path, found[0].score) == (path, 1.0)


def test_content_key_is_that_of_the_file_if_there_is_one(
    small: Store, written: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "here.png").write_bytes(b"bytes of a picture")
    os.mkfifo(tmp_path / "pipe.png")  # opening it would hang
    (tmp_path / "link.png").symlink_to(tmp_path / "here.png")
    names = ["here.png", "pipe.png", "link.png", "gone.png", "gone2.png", "given.png"]
    rows: list[dict[str, Any]] = [{"path": name, "modality": "image"} for name in names]
    rows[-1]["sha256"] = "AB" * 32
    import_vectors(small, written(rows, np.tile([1.0, 0, 0, 0], (6, 1))), assume_space=True)
    keys = {Path(item.path).name: item.contents["content"].sha256 for item in small.items()}
    assert keys["here.png"] == hashlib.sha256(b"bytes of a picture").digest()
    assert keys["given.png"] == b"\xab" * 32
    assert len(set(keys.values())) == 6


def test_known_contents_keep_their_vectors(small: Store, written: Callable[..., Path]) -> None:
    sha256 = "11" * 32
    rows = [{"path": "/m/a", "modality": "image", "sha256": sha256}]
    import_vectors(small, written(rows, np.eye(1, 4)), assume_space=True)
    rows = [{"path": f"/m/{name}", "modality": "image", "sha256": sha256} for name in "bc"]
    done = import_vectors(small, written(rows, np.eye(4)[2:]), assume_space=True)
    assert done == Imported(rows=2, added=2, known=2)
    (found,) = Retrieval(small).search(np.eye(1, 4, dtype=np.float32), k=5, fold="none")
    assert [(hit.path, hit.score) for hit in found] == [("/m/a", 1.0), ("/m/b", 1.0), ("/m/c", 1.0)]


def test_items_that_are_there_are_updated(small: Store, written: Callable[..., Path]) -> None:
    row: dict[str, Any] = {"path": "/m/a", "modality": "image", "sha256": "11" * 32}
    rows = [
        row | {"caption": "old", "metadata": {"year": 1}},
        row | {"caption": "old", "role": "caption", "sha256": None},
    ]
    import_vectors(small, written(rows, np.eye(2, 4)), assume_space=True)

    def after(**told: Any) -> StoredItem:
        done = import_vectors(small, written([row | told], np.eye(1, 4)), assume_space=True)
        assert (done.rows, done.added, done.updated + done.unchanged, done.problem_count) == (1, 0, 1, 0)
        item = small.item_at("/m/a")
        assert item is not None
        return item

    same = after()  # what it does not tell stays
    assert (same.caption, same.metadata, set(same.contents)) == ("old", '{"year":1}', {"content", "caption"})
    assert after(metadata='{"year": 2, "latitude": 3.5}').metadata == '{"year":2}'  # positions are private
    newer = after(caption="new")
    assert (newer.caption, newer.metadata, set(newer.contents)) == ("new", '{"year":2}', {"content"})
    cleared = after(caption=None, metadata=None)
    assert (cleared.caption, cleared.metadata) == (None, None)
    moved = after(sha256="22" * 32)
    assert moved.contents["content"].sha256 == b"\x22" * 32
    assert len(list(small.items())) == 1
    assert len(small.orphans()) == 2  # the old content, and the old caption


def test_positions_are_kept_if_asked_for(small: Store, written: Callable[..., Path]) -> None:
    source = written([{"path": "/m/a", "modality": "image", "metadata": {"latitude": 3.5}}], np.eye(1, 4))
    import_vectors(small, source, assume_space=True, positions=True)
    assert next(small.items()).metadata == '{"latitude":3.5}'


OK = {"path": "/m/ok", "modality": "image"}
UNIT = [1.0, 0.0, 0.0, 0.0]
BAD_ROWS = {
    "nan": (OK, [np.nan, 0, np.nan, 1], "has NaN or infinity in 2 of 4 numbers, first at 0"),
    "infinity": (OK, [0, 0, np.inf, 1], "has NaN or infinity in 1 of 4 numbers, first at 2"),
    "zeros": (OK, [0, 0, 0, 0], "has a vector of zeros, which has no direction"),
    "no path": ({"modality": "image"}, UNIT, "names no path"),
    "empty path": (OK | {"path": ""}, UNIT, "names no path"),
    "number for a path": (OK | {"path": 3}, UNIT, "names no path"),
    "nul in a path": (OK | {"path": "/m/\0"}, UNIT, "has a path with NUL or of more than 4,096 bytes"),
    "long path": (OK | {"path": "/m/" + "x" * 5000}, UNIT, "has a path with NUL or of more than 4,096 bytes"),
    "half a character": (OK | {"path": "/m/\ud800"}, UNIT, "has a path that is no file name"),
    "odd bytes": (OK | {"path_bytes": "xy"}, UNIT, 'path_bytes that are not hexadecimal: "xy"'),
    "modality": (OK | {"modality": "song"}, UNIT, 'has the modality "song", not one of text, image, audio'),
    "no modality": ({"path": "/m/ok"}, UNIT, "has the modality null, not one of"),
    "role": (OK | {"role": "thumbnail"}, UNIT, 'has the role "thumbnail", not content, caption, or as'),
    "sha256": (OK | {"sha256": "abc"}, UNIT, 'has a sha256 that is none: "abc"'),
    "caption": (OK | {"caption": ["x"]}, UNIT, r'has a caption that is no text: \["x"\]'),
    "long caption": (OK | {"caption": "x" * 20_000}, UNIT, "has a caption of 20,000 characters, at most 10,000"),
    "half a caption": (OK | {"caption": "\udc80"}, UNIT, "has a caption with half characters"),
    "nul in a caption": (OK | {"caption": "\0"}, UNIT, "has a caption with NUL"),
    "metadata": (OK | {"metadata": {"a": float("nan")}}, UNIT, "has metadata that cannot be used: 'a' is nan, which"),
    "no object": (OK | {"metadata": [1]}, UNIT, r"has metadata that cannot be used: not a JSON object: \[1\]"),
    "metadata text": (OK | {"metadata": "{"}, UNIT, "has metadata that cannot be used: not JSON"),
    "large metadata": (OK | {"metadata": {str(n): "ä" * 9000 for n in range(9)}}, UNIT, "has metadata of 162,.* bytes"),
    "double": ({"path": "/m/x/../first", "modality": "text"}, UNIT, r"path and role \(content\) of an earlier row"),
    "caption alone": (OK | {"role": "caption", "caption": "c"}, UNIT, "no row before it has the content of /m/ok"),
    "caption without one": ({"path": "/m/first", "modality": "text", "role": "caption"}, UNIT, "/m/first has none"),
    "caption of another": (
        OK | {"path": "/m/first", "role": "caption"},
        UNIT,
        "modality image, but /m/first is of text",
    ),
    "caption's hash": (
        {"path": "/m/first", "modality": "text", "role": "caption", "caption": "c", "sha256": "11" * 32},
        UNIT,
        "has a sha256 that is not that of its caption",
    ),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_left_out_with_the_reason(small: Store, written: Callable[..., Path], case: str) -> None:
    import re

    row, vector, reason = BAD_ROWS[case]
    first, last = {"path": "/m/first", "modality": "text"}, {"path": "/m/last", "modality": "text"}
    done = import_vectors(small, written([first, row, last], [UNIT, vector, UNIT]), assume_space=True)
    assert (done.rows, done.added, done.problem_count) == (3, 2, 1)
    (problem,) = done.problems
    assert problem.row == 2
    assert re.search(reason, problem.reason), problem
    assert [item.path for item in small.items()] == ["/m/first", "/m/last"]


@pytest.mark.parametrize("line", ["{", "[1]", '{"path": ' + "[" * 100_000, '{"path": "' + "x" * 3_000_000 + '"}'])
def test_bad_lines_are_left_out(small: Store, written: Callable[..., Path], line: str) -> None:
    source = written([OK, OK, OK | {"path": "/m/z"}], np.eye(3, 4))
    lines = source.with_suffix(".jsonl").read_text().splitlines()
    source.with_suffix(".jsonl").write_text("\n".join([lines[0], line, "", lines[2]]))
    done = import_vectors(small, source, assume_space=True)
    assert (done.rows, done.added, done.problem_count, done.problems[0].row) == (3, 2, 1, 2)
    assert (
        "its line is not" in done.problems[0].reason or "has a line of more than 1,048,576" in done.problems[0].reason
    )
    (found,) = Retrieval(small).search(np.eye(3, 4, dtype=np.float32)[2:], k=1)
    assert (found[0].path, found[0].score) == ("/m/z", 1.0)  # lines and rows still belong together


def test_bad_vectors_of_parquet(small: Store, tmp_path: Path) -> None:
    vectors = pa.array([UNIT, None, [1.0, 0.0], [1.0, None, 0.0, 0.0], []], pa.list_(pa.float32()))
    table = pa.table({"path": list("abcde"), "modality": ["image"] * 5, "vector": vectors})
    pq.write_table(table, tmp_path / "t.parquet")
    done = import_vectors(small, tmp_path / "t.parquet", assume_space=True)
    assert done.problems == [
        RowProblem(row=2, reason="has no vector"),
        RowProblem(row=3, reason="has a vector of 2 numbers, 4 are needed"),
        RowProblem(row=4, reason="has NaN or infinity in 1 of 4 numbers, first at 1"),
        RowProblem(row=5, reason="has a vector of 0 numbers, 4 are needed"),
    ]
    assert done.added == 1


def test_problems_beyond_the_first_are_counted(
    small: Store, written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "MAX_PROBLEMS", 2)
    done = import_vectors(small, written([OK] * 5, np.zeros((5, 4))), assume_space=True)
    assert ([problem.row for problem in done.problems], done.problem_count) == ([1, 2], 5)
    assert small.generation == 0


def parquet_of(tmp_path: Path, **columns: Any) -> Path:
    vector = pa.array([UNIT], pa.list_(pa.float32(), 4))
    table = {"path": ["/m/a"], "modality": ["image"], "vector": vector} | columns
    pq.write_table(
        pa.table({name: column for name, column in table.items() if column is not None}), tmp_path / "t.parquet"
    )
    return tmp_path / "t.parquet"


def npy_of(tmp_path: Path, matrix: Any, lines: int = 1, **saving: Any) -> Path:
    np.save(tmp_path / "t.npy", matrix, **saving)
    (tmp_path / "t.jsonl").write_text((json.dumps(OK) + "\n") * lines)
    return tmp_path / "t.npy"


def text_of(tmp_path: Path, name: str, data: bytes = b"") -> Path:
    (tmp_path / "t.jsonl").write_text("")
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


def fifo_of(tmp_path: Path, name: str) -> Path:
    os.mkfifo(tmp_path / name)
    return tmp_path / name


FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "suffix": (lambda p: text_of(p, "t.csv"), r"t\.csv: the name must end in \.parquet or \.npy"),
    "nothing": (lambda p: p / "t.parquet", r"t\.parquet: it is damaged or cannot be read \(No such file"),
    "fifo": (lambda p: fifo_of(p, "t.parquet"), r"t\.parquet: it is not a regular file"),
    "no parquet": (lambda p: text_of(p, "t.parquet", b"x" * 99), r"t\.parquet: it is damaged or cannot be read"),
    "no modality": (
        lambda p: parquet_of(p, modality=None),
        "needs the columns path, modality, vector, each once; it has",
    ),
    "path type": (lambda p: parquet_of(p, path=[1]), "column path must be text, it is int64"),
    "metadata type": (
        lambda p: parquet_of(p, metadata=[{"a": 1}]),
        "metadata must be text, as JSON text, it is struct",
    ),
    "vector type": (
        lambda p: parquet_of(p, vector=pa.array([[1, 0, 0, 0]])),
        "column vector must be a list of float16, float32 or float64, it is list<",
    ),
    "parquet width": (
        lambda p: parquet_of(p, vector=pa.array([[1.0, 0.0]], pa.list_(pa.float32(), 2))),
        r"its vectors have 2 numbers, those of space 's' \(revision r\) have 4",
    ),
    "broken utf-8": (
        lambda p: parquet_of(p, path=pa.array([b"\xff"]).view(pa.string())),
        r"t\.parquet: it is damaged or cannot be read \(.*UTF8",
    ),
    "npy width": (lambda p: npy_of(p, np.eye(1, 3)), "its vectors have 3 numbers, those of space 's' .* have 4"),
    "npy shape": (lambda p: npy_of(p, np.ones(4)), r"it must have shape \(n, d\) .*, it has shape \(4,\) and float64"),
    "npy type": (lambda p: npy_of(p, np.eye(1, 4, dtype=np.int8)), r"it has shape \(1, 4\) and int8"),
    "pickle in npy": (
        lambda p: npy_of(p, np.array([[print]], object), allow_pickle=True),
        r"t\.npy: it is damaged or cannot be read",
    ),
    "pickle": (lambda p: text_of(p, "t.npy", b"\x80\x04N."), r"t\.npy: it is damaged or cannot be read"),
    "cut npy": (
        lambda p: text_of(p, "t.npy", npy_of(p, np.eye(1, 4)).read_bytes()[:-1]),
        r"t\.npy: it is damaged or cannot be read",
    ),
    "lines": (
        lambda p: npy_of(p, np.eye(3, 4), lines=2),
        r"it has 3 rows, t\.jsonl has 2 lines; each row needs its line",
    ),
    "no lines": (
        lambda p: npy_of(p, np.eye(3, 4)).rename(p / "u.npy"),
        r"u\.jsonl, which has a line for each row, is missing",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_cannot_be_used_are_refused(small: Store, tmp_path: Path, case: str) -> None:
    make, message = FILES[case]
    with pytest.raises(CollectionError, match=message):
        import_vectors(small, make(tmp_path), assume_space=True)
    assert small.generation == 0


def test_an_archive_is_no_npy(small: Store, tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", np.eye(1, 4))
    (tmp_path / "t.npz").rename(tmp_path / "t.npy")
    (tmp_path / "t.jsonl").write_text("{}\n")
    with pytest.raises(CollectionError, match="an archive of several arrays"):
        import_vectors(small, tmp_path / "t.npy", assume_space=True)


def test_an_export_of_nothing(small: Store, tmp_path: Path) -> None:
    for name in FORMATS:
        assert export(small, tmp_path / name) == 0
        assert import_vectors(small, tmp_path / name) == Imported()


def test_the_second_writer_is_refused(small: Store, written: Callable[..., Path]) -> None:
    source = written([OK], np.eye(1, 4))
    with writer_lock(small.folder), pytest.raises(CollectionLockedError, match="pid"):
        import_vectors(small, source, assume_space=True)


def test_a_full_disk_keeps_what_was_committed_and_the_next_run_goes_on(
    rich: Store, empty: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_files, "CHUNK_ROWS", 2)
    count = export(rich, tmp_path / "x.npy")
    write, left = Writer.write_shard, [3]

    def fail(self: Any, *args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return write(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write_shard", fail)
        with pytest.raises(CollectionError, match=r"No space left on device.*what was committed before is kept"):
            import_vectors(empty, tmp_path / "x.npy")
    before = len(list(empty.items()))
    assert 0 < before < 8
    done = import_vectors(empty, tmp_path / "x.npy")
    assert (done.rows, done.problem_count) == (count, 0)
    assert without_ids(empty) == without_ids(rich)
    assert empty.vector_count() == rich.vector_count()


def test_contents_of_rows_that_were_overruled_are_not_left_behind(small: Store, written: Callable[..., Path]) -> None:
    """A vector that no item has must be an orphan, or nothing would ever delete it."""
    import_vectors(small, written([OK | {"sha256": "11" * 32}], np.eye(1, 4)), assume_space=True)
    rows = [OK | {"role": "caption", "caption": "one"}, OK | {"caption": "two", "sha256": "11" * 32}]
    import_vectors(small, written(rows, np.eye(4)[1:3]), assume_space=True)
    (contents,) = small.db.execute("SELECT count(*) FROM content").fetchone()
    (used,) = small.db.execute("SELECT count(DISTINCT content) FROM embedding").fetchone()
    assert contents == used + len(small.orphans())


def test_imported_vectors_are_deleted_like_others(small: Store, written: Callable[..., Path]) -> None:
    import_vectors(small, written([OK, OK | {"path": "/m/b"}], np.eye(2, 4)), assume_space=True)
    with writing(small) as writer:
        writer.remove([1])
    assert compact(small).vectors_removed == 1
    assert [item.path for item in small.items()] == ["/m/b"]


def test_lengths() -> None:
    rows = np.array([[3e200, 4e200], [3e-300, 4e-300], [0.6, 0.8], [0.605, 0.807], [0.6, 0.9]])
    units, faults = unit_vectors(rows, scale=True)
    assert faults == [None] * 5
    np.testing.assert_allclose(units[:3], [[0.6, 0.8]] * 3, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1, rtol=1e-6)
    assert units.dtype == np.float32
    units, faults = unit_vectors(rows[2:], scale=False)
    assert faults == [None, None, "has a vector of length 1.082, 1 is needed"]
    np.testing.assert_allclose(units, np.array([[0.6, 0.8], [0.605, 0.807], [0, 0]]), rtol=1e-6)
    half: Any = np.array([[0.6, 0.8]], np.float16)
    np.testing.assert_array_equal(unit_vectors(half, scale=False)[0].astype(np.float16), half)
