"""`verify`: what is sound is called sound, and each kind of damage is told for what it is."""

import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trivium.encoders.base import MODALITIES, Modality, Space, unit_rows
from trivium.encoders.files.reading import file_sha256, file_state
from trivium.pipeline.collection import Collection
from trivium.pipeline.ingest import scanning
from trivium.pipeline.ingest.scanning import fingerprint
from trivium.pipeline.records import ContentKey, NewItem
from trivium.pipeline.search.indexing import Indexer, build_index_file
from trivium.pipeline.search.retrieval import Retrieval
from trivium.pipeline.search.vectors import usable_index
from trivium.pipeline.store.database import CollectionError, CollectionLockedError
from trivium.pipeline.store.database_file import CHECKSUM, DATABASE, change_counter, read_checksum, write_checksum
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing
from trivium.pipeline.upkeep import verification
from trivium.pipeline.upkeep.compaction import compact
from trivium.pipeline.upkeep.findings import Finding
from trivium.pipeline.upkeep.verification import Verification, verify

SPACE = Space(name="stub", dim=16, revision="1")
# Kills itself in the middle of a transaction, with changed pages in the file and the old ones in the journal.
INTERRUPTED = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE item SET caption = 'torn ' || id, fingerprint = 'torn'")
os._exit(0)
"""


def fill(store: Store, modality: Modality, count: int, *, seed: int) -> None:
    """Commit items of one modality, each with a vector, drawn from a seed."""
    rng = np.random.default_rng(seed)
    keys = [ContentKey(modality, rng.bytes(32)) for _ in range(count)]
    items = [
        NewItem(
            path=f"/media/{modality}/{seed}-{number}",
            modality=modality,
            fingerprint=f"{number}-1700000000000000000-1700000000000000000-{number}",
            caption=f"caption {number} of {seed}",
            metadata=json.dumps({"year": 2000 + number % 25}),
            contents={"content": key},
        )
        for number, key in enumerate(keys)
    ]
    with writing(store) as writer:
        writer.commit(items, keys, unit_rows(rng.normal(size=(count, SPACE.dim))))


def fill_other_space(store: Store) -> None:
    rng = np.random.default_rng(9)
    contents = store.locations("image").contents.tolist()[:80]
    with writing(store) as writer:
        space = writer.add_space(Space(name="other", dim=8, revision="2"), source="other")
        writer.commit_vectors(space, "image", contents, unit_rows(rng.normal(size=(len(contents), 8))))


def remove(store: Store, count: int) -> None:
    with writing(store) as writer:
        writer.remove([item.id for item, _ in zip(store.items(), range(count), strict=False)])


def remove_and_compact(store: Store) -> None:
    remove(store, 50)
    compact(store)


def prepare(folder: Path, *, seed: int) -> None:
    """Make a collection with all that a collection can have."""
    store = Store.create(folder, SPACE, source="stub")
    fill(store, "image", 150, seed=seed + 1)
    fill(store, "image", 150, seed=seed + 2)
    fill(store, "text", 120, seed=seed + 3)
    fill(store, "audio", 40, seed=seed + 4)
    with writing(store) as writer:
        writer.set_wish({"kind": "flat"})
        build_index_file(writer, "image", kind="flat")
        build_index_file(writer, "text", kind="fp16")
        build_index_file(writer, "audio", kind="flat")
    fill(store, "image", 40, seed=seed + 5)  # what the index file does not hold
    fill_other_space(store)
    remove(store, 5)
    store.close()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "c"
    prepare(folder, seed=100)
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged, whose index files are known by their times."""
    copy = shutil.copytree(prepared, tmp_path / "c")
    states = [(path.name, file_state(path)) for path in (copy / "index").iterdir()]
    own = "substr(state, instr(state, ' '))"  # the seal
    edit(copy, *(f"UPDATE index_file SET state = '{state}' || {own} WHERE name = '{name}'" for name, state in states))
    return copy


def rebuild(folder: Path) -> None:
    store = Store(folder)
    with writing(store) as writer:
        Indexer(writer).rebuild()
    store.close()


def hits(folder: Path) -> list[tuple[str, float]]:
    """All items as a search that has just opened the collection ranks them: no vector is without effect."""
    store = Store(folder)
    try:
        found = Retrieval(store).search(unit_rows(np.random.default_rng(7).normal(size=(2, SPACE.dim))), k=1000)
        return [(hit.path, hit.score) for row in found for hit in row]
    finally:
        store.close()


def alike(hits: list[tuple[str, float]]) -> list[tuple[str, Any]]:
    """The same hits; the last bits of a score depend on how the vectors are spread over indexes."""
    return [(path, pytest.approx(score, abs=1e-5)) for path, score in hits]


def edit(folder: Path, *statements: str) -> None:
    """Change the database as no program does, and make its checksum right again."""
    db = sqlite3.connect(folder / DATABASE, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    for statement in statements:
        db.execute(statement)
    db.close()
    write_checksum(folder)


def only(verification: Verification) -> Finding:
    assert len(verification.findings) == 1, verification.findings
    return verification.findings[0]


def flip(path: Path, position: int, *, bit: int = 0) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))


def interrupt(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", INTERRUPTED, str(folder / DATABASE)], check=True)
    assert (folder / f"{DATABASE}-journal").stat().st_size > 0


# What is sound


@pytest.mark.parametrize(
    "change",
    [
        lambda store: None,
        lambda store: fill(store, "text", 3, seed=1),
        lambda store: remove(store, 50),
        lambda store: remove_and_compact(store),
        lambda store: compact(store),
        lambda store: rebuild(store.folder),
    ],
    ids=["prepared", "added", "removed", "removed and compacted", "compacted", "rebuilt"],
)
def test_sound_collection_is_sound(folder: Path, change: Callable[[Store], object]) -> None:
    store = Store(folder)
    change(store)
    store.close()
    for read_data in (False, True):
        found = verify(folder, read_data=read_data)
        assert found.is_sound
        assert found.findings == []
        assert found.files == sum(1 for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    assert found.bytes_read == sum(
        path.stat().st_size for path in folder.rglob("*") if path.suffix in (".db", ".npy", ".faiss")
    )


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_parts_together_read_every_byte_once(folder: Path, parts: int) -> None:
    (folder / CHECKSUM).unlink()  # so that the database, which each part reads, does not count
    whole = verify(folder, read_data=True)
    found = [verify(folder, read_data=True, part=(number + 1, parts)) for number in range(parts)]
    assert all(one.is_sound and one.files == whole.files for one in found)
    assert sum(one.bytes_read for one in found) == whole.bytes_read
    assert sum(one.bytes_read > 0 for one in found) > parts // 2


def test_damage_is_found_by_one_part(folder: Path) -> None:
    for path in [*(folder / "vectors").iterdir(), *(folder / "index").iterdir()]:
        flip(path, path.stat().st_size - 1)
        told = [verify(folder, read_data=True, part=(number, 7)).findings for number in range(1, 8)]
        flip(path, path.stat().st_size - 1)
        found = [finding for findings in told for finding in findings if finding.path == str(path)]
        # Of an index file that was touched, the other parts say so.
        assert sum("its bytes are not those that were written" in finding.what for finding in found) == 1


def test_a_flipped_bit_in_the_database_is_found_by_each_part(folder: Path) -> None:
    data = (folder / DATABASE).read_bytes()
    flip(folder / DATABASE, data.index(b"caption 7 of") + 1)
    for number in range(1, 8):
        assert only(verify(folder, read_data=True, part=(number, 7))).path == str(folder / DATABASE)


def test_parts_of_the_media(collection: Collection) -> None:
    whole, sizes = verify(collection.folder, media=True), []
    for number in range(1, 4):
        calls: list[tuple[int, int]] = []
        found = verify(
            collection.folder, media=True, part=(number, 3), progress=lambda *call, calls=calls: calls.append(call)
        )
        assert (found.findings, found.files) == ([], whole.files)
        assert not calls or calls[-1] == (found.bytes_read, found.bytes_read)
        sizes.append(found.bytes_read)
    assert sum(sizes) == whole.bytes_read
    assert 0 < max(sizes) < whole.bytes_read
    for item in collection._existing().items():
        flip(Path(item.path), os.stat(item.path).st_size - 1)
    told = [verify(collection.folder, media=True, part=(number, 3)).findings for number in range(1, 4)]
    changed = sorted(finding.path for findings in told for finding in findings if "SHA-256" in finding.what)
    assert changed == sorted(item.path for item in collection._existing().items())


@pytest.mark.parametrize("part", [(0, 7), (8, 7), (1, 0)])
def test_part_that_there_is_not(folder: Path, part: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"part must be \(1, n\) to \(n, n\), got \({part[0]}, {part[1]}\)"):
        verify(folder, read_data=True, part=part)


def test_indexed_media_are_sound(collection: Collection) -> None:
    found = verify(collection.folder, read_data=True, media=True)
    assert found.findings == []
    collection.remove([item.path for item in collection._existing().items()][:3])
    assert verify(collection.folder, read_data=True, media=True).findings == []


def test_collection_moved_to_another_space_is_sound(folder: Path) -> None:
    store = Store(folder)
    with writing(store) as writer:
        other = next(id_ for id_, space in store.spaces().items() if space.name == "other")
        encoded = set(store.locations("image", space=other).contents.tolist())
        items = [item.id for item in store.items()]
        kept = {match.item for matches in store.matches(sorted(encoded)).values() for match in matches}
        writer.switch_space(other, without_items=set(items) - kept)
    assert verify(folder, read_data=True).findings == []


def test_new_collection_is_sound(tmp_path: Path) -> None:
    Store.create(tmp_path / "c", SPACE, source="stub").close()
    assert only(verify(tmp_path / "c", read_data=True)).path.endswith(CHECKSUM)
    shutil.rmtree(tmp_path / "c" / "vectors")
    shutil.rmtree(tmp_path / "c" / "index")
    assert verify(tmp_path / "c", read_data=True).is_sound


def test_killed_writer_leaves_an_old_checksum_which_is_a_note(folder: Path) -> None:
    old = (folder / CHECKSUM).read_bytes()
    store = Store(folder)
    fill(store, "text", 3, seed=1)
    store.close()
    (folder / CHECKSUM).write_bytes(old)
    found = only(verify(folder, read_data=True))
    assert not found.is_damage
    assert f"it is of change {change_counter(folder)[0] - 1} of" in found.what
    rebuild(folder)
    assert verify(folder, read_data=True).findings == []


def test_interrupted_write_is_rolled_back_and_nothing_is_wrong(folder: Path) -> None:
    before, data = hits(folder), (folder / DATABASE).read_bytes()
    interrupt(folder)
    assert (folder / DATABASE).read_bytes() != data
    assert verify(folder, read_data=True).findings == []
    assert not (folder / f"{DATABASE}-journal").exists()
    assert hits(folder) == alike(before)


def test_progress_ends_when_all_is_read(folder: Path) -> None:
    calls: list[tuple[int, int]] = []
    found = verify(folder, read_data=True, progress=lambda done, to_do: calls.append((done, to_do)))
    assert calls[-1] == (found.bytes_read, found.bytes_read)
    assert len({to_do for _, to_do in calls}) == 1
    assert calls == sorted(calls)
    for path in [*(folder / "index").iterdir(), *list((folder / "vectors").iterdir())[:2]]:
        path.unlink()
    verify(folder, read_data=True, progress=lambda done, to_do: calls.append((done, to_do)))
    assert calls[-1] == calls[0][1:] * 2


def test_verification_leaves_the_locks_of_searches_in_the_same_process(folder: Path) -> None:
    store = Store(folder)
    with store.reading():
        store.counts()
        verify(folder, read_data=True, media=True)
        code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN EXCLUSIVE')"
        child = subprocess.run([sys.executable, "-c", code, str(folder / DATABASE)], capture_output=True, text=True)
    assert "database is locked" in child.stderr
    store.close()


# What is no collection, or not to be looked at just now


def test_what_is_no_collection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="no collection at"):
        verify(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CollectionError, match="is a file"):
        verify(tmp_path / "file")
    (tmp_path / "other").mkdir()
    with pytest.raises(CollectionError, match="is not a collection"):
        verify(tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


def test_collection_that_is_being_written_is_refused(folder: Path) -> None:
    store = Store(folder)
    with writing(store), pytest.raises(CollectionLockedError, match=rf"pid {os.getpid()}"):
        verify(folder)


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is another user's: tests may run as root, whom no permission stops."""

    def refuse(folder: Path) -> Any:
        raise CollectionError(f"cannot write to {folder}")

    monkeypatch.setattr(verification, "writer_lock", refuse)


def test_collection_of_another_user_is_verified_without_the_lock(folder: Path, unwritable: None) -> None:
    before = {path: path.stat() for path in [folder, *folder.rglob("*")]}
    assert verify(folder, read_data=True).findings == []
    after = {path: path.stat() for path in [folder, *folder.rglob("*")]}
    assert {path: status.st_mtime_ns for path, status in after.items()} == {
        path: status.st_mtime_ns for path, status in before.items()
    }


def test_collection_that_was_written_to_meanwhile_is_not_judged(folder: Path, unwritable: None) -> None:
    def write_once(done: int, to_do: int) -> None:
        if done == to_do:
            store = Store(folder)
            fill(store, "text", 3, seed=1)
            store.close()

    with pytest.raises(CollectionLockedError, match="was written to while it was verified"):
        verify(folder, read_data=True, progress=write_once)


def test_interrupted_write_that_may_not_be_rolled_back_is_told(folder: Path, unwritable: None) -> None:
    interrupt(folder)
    found = only(verify(folder))
    assert found.is_damage
    assert "cannot be rolled back without writing" in found.what


def test_database_that_another_program_keeps_to_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivium.pipeline.store.database.BUSY_SECONDS", 0)
    db = sqlite3.connect(folder / DATABASE, isolation_level=None)
    db.execute("BEGIN EXCLUSIVE")
    with pytest.raises(CollectionLockedError, match="in use by another program"):
        verify(folder)
    db.close()


# What is damaged


def test_missing_database_and_folders(folder: Path) -> None:
    shutil.rmtree(folder / "index")
    assert verify(folder, read_data=True).is_sound
    (folder / "vectors").rename(folder / "elsewhere")
    found = verify(folder, read_data=True)
    assert [f.what for f in found.findings if f.is_damage] == ["the folder is missing, with 6 files of vectors"]
    (folder / "vectors").write_text("a file")
    assert not verify(folder).is_sound
    (folder / "vectors").unlink()
    (folder / "elsewhere").rename(folder / "vectors")
    (folder / DATABASE).unlink()
    assert only(verify(folder)).what == "it is missing"
    (folder / DATABASE).mkdir()
    assert "collection.db is no regular file" in only(verify(folder)).what
    assert only(verify(folder)).remedy.startswith(f"restore a backup (`trivium restore BACKUP {folder}`), or delete")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_in_the_place_of_files_hang_nothing(folder: Path) -> None:
    for path in [*(folder / "index").iterdir(), *(folder / "vectors").iterdir(), folder / CHECKSUM]:
        path.unlink()
        os.mkfifo(path)
    found = verify(folder, read_data=True)
    assert len(found.findings) == 1 + 3 + 6
    assert sum(finding.is_damage for finding in found.findings) == 6


@pytest.mark.parametrize("text", ['{"fields": 5, "check": ""}', "[" * 4000, "[]", '"x"', "\xff"])
def test_odd_checksums_are_notes(folder: Path, text: str) -> None:
    (folder / CHECKSUM).write_text(text, "latin-1")
    found = only(verify(folder, read_data=True))
    assert not found.is_damage
    assert "is damaged" in found.what


@pytest.mark.parametrize("position", [*range(24, 28), *range(92, 96)])
@pytest.mark.parametrize("read_data", [False, True])
def test_flipped_change_counter_does_not_pass_for_an_old_checksum(folder: Path, position: int, read_data: bool) -> None:
    for bit in range(8):
        flip(folder / DATABASE, position, bit=bit)
        damage = [f for f in verify(folder, read_data=read_data).findings if f.is_damage]
        assert [f.what for f in damage if "and the copy of it" in f.what], bit
        flip(folder / DATABASE, position, bit=bit)
    assert verify(folder, read_data=True).findings == []


def test_older_database_is_damage(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / DATABASE, tmp_path / "old.db")
    store = Store(folder)
    with writing(store) as writer:
        writer.touch({item.id: ("1-2-3-4", "", None) for item in store.items()})
    store.close()
    shutil.copy(tmp_path / "old.db", folder / DATABASE)
    found = only(verify(folder))
    assert found.is_damage
    assert "it is an old one" in found.what


def test_newer_format_is_not_called_rot(folder: Path) -> None:
    edit(folder, "PRAGMA user_version = 99")
    found = only(verify(folder, read_data=True))
    assert "it says that it has format 99, this Trivium reads format 3" in found.what
    assert found.remedy.startswith("if another Trivium wrote it, verify it with that one")


def test_text_that_decayed_in_the_database_is_found_by_its_hash_alone(folder: Path) -> None:
    data = (folder / DATABASE).read_bytes()
    flip(folder / DATABASE, data.index(b"caption 3 of"))
    assert verify(folder).is_sound
    found = only(verify(folder, read_data=True))
    assert found.is_damage
    assert "its bytes are not those that were written: SHA-256" in found.what


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE collection SET generation = -1", "no sensible number of its generation"),
        ("UPDATE space SET dim = 0 WHERE name = 'other'", "1 spaces have no sensible width"),
        ("UPDATE space SET dim = 17 WHERE name = 'stub'", "bytes for 150 x 17 numbers"),
        ("UPDATE content SET sha256 = 'x' WHERE id = 9", "1 contents have no SHA-256"),
        ("UPDATE vector SET modality = 'text' WHERE content = 9", "vectors belong to no content of their modality"),
        ("DELETE FROM vector WHERE content IN (9, 10)", "2 contents have no vector in the space that is searched"),
        ("DELETE FROM embedding WHERE item = 9", "1 items have no content"),
        ("DELETE FROM orphan WHERE content = 3", "1 contents that no item has are not listed as such"),
        ("INSERT INTO orphan VALUES (9)", "1 contents are listed as no item's, and an item has them"),
        ("DELETE FROM content WHERE id = 9", "1 rows of its table 'embedding' name a 'content' that is not there"),
        ("UPDATE vector SET space = 7 WHERE content = 300", "1 rows of its table 'vector' name a 'space'"),
        ("UPDATE vector SET row = 150 WHERE content = 9 AND space = 1", "rows 0 to 150 of shard 00000001-"),
        ("UPDATE vector SET row = -1 WHERE content = 9 AND space = 1", "rows -1 to 149 of shard 00000001-"),
        ("UPDATE vector SET row = 'x' WHERE content = 9 AND space = 1", "rows 0 to x of shard 00000001-"),
        ("UPDATE vector SET row = 3 WHERE content = 9 AND space = 1", "150 vectors lie in 149 rows of shard"),
        ("UPDATE vector SET shard = 99 WHERE content = 9 AND space = 1", "1 vectors lie in shard 99, which is not"),
        ("UPDATE vector SET shard = 3, row = 0 WHERE content = 9 AND space = 1", "of different spaces or modalities"),
        ("UPDATE shard SET name = '../evil' WHERE id = 1", "its record of shard 1 makes no sense"),
        ("UPDATE shard SET sha256 = 'f' WHERE id = 1", "is recorded with another hash (f...)"),
        ("UPDATE shard SET rows = 'many' WHERE id = 1", "its record of shard 1 makes no sense"),
        ("UPDATE shard SET rows = 149 WHERE id = 1", "rows 0 to 149 of shard"),
        ("UPDATE index_file SET size = 'x'", "its record of the index file for"),
        ("UPDATE collection SET space = 77", "it names no space"),
    ],
)
def test_contradictions_in_the_tables_are_damage(folder: Path, statement: str, what: str) -> None:
    assert verify(folder).is_sound
    edit(folder, statement)
    damage = [f for f in verify(folder, read_data=True).findings if f.is_damage]
    assert any(what in f.what for f in damage), damage
    assert all(f.remedy for f in damage)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE index_file SET through = through + 1000 WHERE modality = 'text'",
        "UPDATE index_file SET vectors = vectors - 1 WHERE modality = 'text'",
    ],
)
def test_index_file_that_does_not_fit_the_tables_is_a_note(folder: Path, statement: str) -> None:
    edit(folder, statement)
    found = only(verify(folder, read_data=True))
    assert not found.is_damage
    assert "the collection has 120 of these" in found.what
    assert found.remedy.startswith("`trivium rebuild`")
    rebuild(folder)
    assert verify(folder, read_data=True).findings == []


@pytest.mark.parametrize("value", [0.0, 1.1, np.nan, np.inf])
def test_vectors_that_are_none_are_damage(tmp_path: Path, value: float) -> None:
    store = Store.create(tmp_path / "c", SPACE, source="stub")
    fill(store, "image", 20, seed=0)
    store.close()
    (path,) = (tmp_path / "c" / "vectors").iterdir()
    data = bytearray(path.read_bytes())
    rows = np.frombuffer(data, np.float16, offset=len(data) - 20 * 32).reshape(20, 16)
    rows[4:6] = 0
    rows[4:6, 3] = value
    path.write_bytes(data)
    edit(tmp_path / "c", f"UPDATE shard SET sha256 = '{file_sha256(path)}'")
    found = [f.what for f in verify(tmp_path / "c", read_data=True).findings if f.path == str(path)]
    assert found == ["2 of its 20 vectors are not finite or not of length 1, first in row 4"]


def test_stray_files_are_notes_and_go_with_the_next_write(folder: Path) -> None:
    strays = [
        "vectors/.00000009-0123456789abcdef.npy.new",
        "vectors/00000009-0123456789abcdef.npy",
        "index/.text-hnsw-sq8-01234567.faiss.new",
        "index/audio-flat-01234567.faiss",
    ]
    for stray in strays:
        (folder / stray).write_bytes(b"half")
    found = verify(folder, read_data=True)
    assert found.is_sound
    assert [f.path.removeprefix(f"{folder}/") for f in found.findings] == strays
    rebuild(folder)
    assert verify(folder, read_data=True).findings == []


def test_what_others_keep_in_the_folders_stays(folder: Path) -> None:
    for foreign in ("vectors/@eaDir", "index/lost+found"):
        (folder / foreign).mkdir()
    (folder / "vectors" / "thesis.docx").write_bytes(b"years of work")
    (folder / "index" / "00000009-0123456789abcdef.npy").mkdir()  # a shard's name, in the other folder
    rebuild(folder)
    found = verify(folder, read_data=True)
    assert found.is_sound
    assert {f.what for f in found.findings} == {"it is none of the collection's"}
    assert len(found.findings) == 4
    assert (folder / "vectors" / "thesis.docx").read_bytes() == b"years of work"


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE vector SET shard = 99 WHERE modality = 'audio'", "vectors lie in shard 99, which is not recorded"),
        ("UPDATE index_file SET report = 'x'", "in its column 'report', 'x' is no JSON"),
        ("UPDATE item SET metadata = 'x'", "what it says of .* is no metadata"),
        ("UPDATE vector SET row = -3 WHERE content = 460", "is named, it has 40"),
    ],
)
def test_search_in_a_damaged_database_says_so(folder: Path, statement: str, what: str) -> None:
    edit(folder, "DELETE FROM index_file WHERE modality <> 'image'", statement)
    with pytest.raises(CollectionError, match=what):
        hits(folder)


# Index files


def index_file(folder: Path) -> Path:
    return next(path for path in (folder / "index").iterdir() if path.name.startswith("image"))


def test_index_file_changed_in_place_under_its_old_time_is_noticed(folder: Path) -> None:
    before, path = hits(folder), index_file(folder)
    status = path.stat()
    flip(path, path.stat().st_size // 2, bit=6)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert "it was copied, touched or changed since it was written" in only(verify(folder)).what
    found = only(verify(folder, read_data=True))
    assert not found.is_damage
    assert "searches do without it" in found.what
    assert hits(folder) == alike(before)


def test_index_file_that_decays_under_its_times_is_not_served_after_it_is_found(folder: Path) -> None:
    before, path = hits(folder), index_file(folder)
    flip(path, path.stat().st_size // 2, bit=6)
    own = "substr(state, instr(state, ' '))"  # the seal
    edit(folder, f"UPDATE index_file SET state = '{file_state(path)}' || {own} WHERE modality = 'image'")
    store = Store(folder)
    assert usable_index(store, store.index_files()["image"]) is not None  # nothing tells
    assert verify(folder).findings == []
    found = only(verify(folder, read_data=True))
    assert not found.is_damage
    assert "searches have used it; now its times are others, and they do without it" in found.what
    assert usable_index(store, store.index_files()["image"]) is None
    store.close()
    assert hits(folder) == alike(before)


def test_copied_index_file_is_hashed(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    found = verify(tmp_path / "copy")
    assert found.is_sound
    assert len(found.findings) == 3
    assert verify(tmp_path / "copy", read_data=True).findings == []


# Media


@pytest.fixture
def known(tmp_path: Path, media: Path, space, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collection]:
    """The media, indexed as if they had lain there for long: each with its fingerprint."""
    monkeypatch.setattr(scanning, "FRESH_NS", 0)
    with Collection.open(tmp_path / "c", space=space) as collection:
        collection.add(media)
        yield collection


def test_media_that_changed_are_notes(known: Collection, media: Path) -> None:
    (media / "red.png").unlink()
    (media / "note.md").write_text("# Shopping\n")
    (media / "poem.txt").touch()
    (media / "blue.jpg").unlink()
    (media / "blue.jpg").symlink_to(media / "deep" / "green.webp")
    shutil.move(media / "deep" / "high.ogg", media / "low.wav")
    assert verify(known.folder, read_data=True).findings == []
    found = verify(known.folder, media=True)
    assert found.is_sound
    assert {(Path(f.path).name, f.what) for f in found.findings} == {
        ("red.png", "it is missing"),
        ("high.ogg", "it is missing"),
        ("note.md", "it was changed or touched since it was indexed"),
        ("poem.txt", "it was changed or touched since it was indexed"),
        ("blue.jpg", "it was changed or touched since it was indexed"),
        ("low.wav", "it was changed or touched since it was indexed"),
    }


def test_medium_whose_bytes_the_disk_changed_is_damage(known: Collection, media: Path) -> None:
    path = media / "blue.jpg"
    flip(path, path.stat().st_size // 2)
    state = fingerprint(path.lstat())
    edit(known.folder, f"UPDATE item SET fingerprint = '{state}' WHERE path = CAST('{path}' AS BLOB)")
    assert verify(known.folder, read_data=True).is_sound
    found = only(verify(known.folder, media=True))
    assert found.is_damage
    assert found.path == str(path)
    assert "the disk has changed its bytes: SHA-256" in found.what
    assert found.remedy == "restore the file from a backup; if it is as it should be, touch it and index it again"


def test_fresh_medium_that_differs_is_a_note(collection: Collection, media: Path) -> None:
    assert all(item.fingerprint == scanning.FRESH for item in collection._existing().items())
    flip(media / "blue.jpg", 100)
    found = only(verify(collection.folder, media=True))
    assert not found.is_damage
    assert "it was changed since it was indexed: SHA-256" in found.what


def test_progress_counts_media(known: Collection, media: Path) -> None:
    (media / "poem.txt").unlink()
    calls: list[tuple[int, int]] = []
    verify(known.folder, read_data=True, media=True, progress=lambda done, to_do: calls.append((done, to_do)))
    assert calls[-1][0] == calls[-1][1] == calls[0][1]


# Privacy


def test_all_files_are_for_their_owner_alone(tmp_path: Path, media: Path, space) -> None:
    def check(*names: str) -> None:
        seen = {path.name for path in made.rglob("*")}
        assert seen.issuperset(names), seen
        for path in [made, *made.rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path

    made = tmp_path / "c"
    before = os.umask(0o022)
    try:
        with Collection.open(made, space=space) as collection:
            collection.add(media)
            store = collection._existing()
            with writing(store) as writer:
                for modality in MODALITIES:
                    build_index_file(writer, modality, kind="flat")
                check("lock", "lock.holder", DATABASE, CHECKSUM)
                with writer.transaction():
                    writer._db.execute("UPDATE item SET caption = 'x'")
                    check(f"{DATABASE}-journal")
            assert len(list((made / "index").iterdir())) == 3
        interrupt(made)
        check(f"{DATABASE}-journal")
        assert verify(made, read_data=True).findings == []
        check("lock", DATABASE, CHECKSUM)
        assert read_checksum(made) is not None
    finally:
        os.umask(before)


# Faults of each store file

KINDS = ("database", "checksum", "shard", "index")
FAULTS = ("flip", "truncate", "remove", "zero", "swap")
FEW = dict(zip(FAULTS, (13, 5, 2, 2, 3), strict=True))
MANY = dict(zip(FAULTS, (1000, 200, 30, 30, 60), strict=True))
ENDS = 256  # bytes at either end of a file that half of the flips hit


@pytest.fixture(scope="module")
def donors(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Other collections, whose files may take the place of those of the prepared one: another, and its own past."""
    folder = tmp_path_factory.mktemp("donors")
    prepare(folder / "other", seed=200)
    shutil.copytree(prepared, folder / "past")
    store = Store(prepared)
    with writing(store) as writer:  # the same number of pages, other bytes, a later change
        writer.touch({1 + item.id: ("1-2-3-4", "", None) for item in store.items()})
    store.close()
    return [folder / "other", folder / "past"]


def files_of(folder: Path, kind: str) -> list[Path]:
    if kind == "database":
        return [folder / DATABASE]
    if kind == "checksum":
        return [folder / CHECKSUM]
    return sorted((folder / ("vectors" if kind == "shard" else "index")).iterdir())


def strike(path: Path, fault: str, replacements: list[bytes], rng: random.Random) -> str:
    """Damage a file; say how."""
    data = bytearray(path.read_bytes())
    if fault == "remove":
        path.unlink()
        return "removed"
    if fault == "flip":
        ends = [*range(min(ENDS, len(data))), *range(max(0, len(data) - ENDS), len(data))]
        position, bit = rng.choice((rng.choice(ends), rng.randrange(len(data)))), rng.randrange(8)
        data[position] ^= 1 << bit
        told = f"bit {bit} of byte {position} of {len(data)}"
    elif fault == "truncate":
        length = rng.choice((0, rng.randrange(len(data)), len(data) - 1, rng.randrange(len(data))))
        del data[length:]
        told = f"cut to {length}"
    elif fault == "zero":
        data[:] = bytes(len(data))
        told = "all zeros"
    else:
        number = rng.randrange(len(replacements))
        data[:] = replacements[number]
        told = f"replaced by {number}"
    path.write_bytes(data)
    return told


def is_served(path: Path) -> bool:
    """Whether a search would use this index file."""
    store = Store(path.parent.parent)
    try:
        (file,) = (file for file in store.index_files().values() if file.name == path.name)
        return usable_index(store, file) is not None
    finally:
        store.close()


def check_case(
    kind: str, fault: str, seed: int, sound: Path, donors: list[Path], folder: Path, expected: list[tuple[str, float]]
) -> None:
    """Damage one file of a copy: `verify` names it, and a search fails cleanly or, where it can, is right."""
    rng = random.Random(f"{kind} {fault} {seed}")
    shutil.copytree(sound, folder)
    path = rng.choice(files_of(folder, kind))
    own = path.read_bytes()
    others = [file for donor in [folder, *donors] for file in files_of(donor, kind)]
    replacements = [data for data in (file.read_bytes() for file in others) if data != own]
    case = f"{kind} {fault} seed {seed}: {path.name} {strike(path, fault, replacements, rng)}"
    found = verify(folder, read_data=True)
    named = [finding for finding in found.findings if finding.path == str(path)]
    if kind in ("database", "shard"):
        assert any(finding.is_damage for finding in named), case
    elif kind == "index":
        assert named, case
        assert found.is_sound, case
    else:
        # Another collection's checksum, of the same number of changes, looks like damage to the database.
        assert named or (fault == "swap" and not found.is_sound), case
    try:
        got = hits(folder)
    except (CollectionError, sqlite3.DatabaseError):
        assert kind in ("database", "shard"), case
    except Exception as error:
        raise AssertionError(f"{case}: a search raised {error!r}") from error
    else:
        assert kind in ("database", "shard") or got == alike(expected), case
    if kind == "index":
        assert not is_served(path), case
        rebuild(folder)
        assert verify(folder, read_data=True).findings == [], case
        assert hits(folder) == alike(expected), case
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_found_and_never_served(kind: str, prepared: Path, donors: list[Path], tmp_path: Path) -> None:
    expected = hits(prepared)
    for fault, cases in FEW.items():
        for seed in range(cases):
            check_case(kind, fault, seed, prepared, donors, tmp_path / "c", expected)


@pytest.mark.slow
def test_damage_is_found_and_never_served_at_length(prepared: Path, donors: list[Path], tmp_path: Path) -> None:
    expected = hits(prepared)
    failed: list[str] = []
    print(f"\n{'file':10} {'fault':10} {'cases':>6} {'found':>6}")
    for kind in KINDS:
        for fault, cases in MANY.items():
            found = 0
            for seed in range(cases):
                shutil.rmtree(tmp_path / "c", ignore_errors=True)
                try:
                    check_case(kind, fault, seed, prepared, donors, tmp_path / "c", expected)
                    found += 1
                except AssertionError as error:
                    failed.append(str(error))
            print(f"{kind:10} {fault:10} {cases:6} {found:6}", flush=True)
    assert not failed, "\n".join(failed[:20])
