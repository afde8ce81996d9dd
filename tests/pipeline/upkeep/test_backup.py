"""`backup` and `restore`: what comes back is what was there, or nothing is changed and the reason is told."""

import json
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from trivium.encoders.base import Space, unit_rows
from trivium.encoders.files.folders import exchange
from trivium.pipeline.collection import Collection
from trivium.pipeline.records import ContentKey, NewItem
from trivium.pipeline.search.indexing import build_index_file
from trivium.pipeline.search.retrieval import Retrieval
from trivium.pipeline.search.vectors import usable_index
from trivium.pipeline.store.database import CollectionError, CollectionLockedError
from trivium.pipeline.store.database_file import CHECKSUM, DATABASE
from trivium.pipeline.store.locking import writer_lock
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing
from trivium.pipeline.upkeep import backup as backup_module
from trivium.pipeline.upkeep import snapshot as snapshot_module
from trivium.pipeline.upkeep.backup import MARK, backup, restore
from trivium.pipeline.upkeep.compaction import compact
from trivium.pipeline.upkeep.verification import verify

SPACE = Space(name="stub", dim=16, revision="1")


def fill(folder: Path, count: int, *, seed: int) -> None:
    rng = np.random.default_rng(seed)
    keys = [ContentKey("text", rng.bytes(32)) for _ in range(count)]
    items = [
        NewItem(path=f"/media/{seed}-{n}", modality="text", fingerprint="", caption=f"{n}", contents={"content": key})
        for n, key in enumerate(keys)
    ]
    with closing(Store(folder)) as store, writing(store) as writer:
        writer.commit(items, keys, unit_rows(rng.normal(size=(count, SPACE.dim))))


def shrink(folder: Path, count: int) -> None:
    with closing(Store(folder)) as store:
        with writing(store) as writer:
            writer.remove([item.id for item, _ in zip(store.items(), range(count), strict=False)])
        compact(store)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A collection of four shards, with an index file that holds three of them."""
    folder = tmp_path / "c"
    Store.create(folder, SPACE, source="stub").close()
    for seed in (1, 2, 3):
        fill(folder, 50, seed=seed)
    with closing(Store(folder)) as store, writing(store) as writer:
        writer.set_wish({"kind": "flat"})
        build_index_file(writer, "text", kind="flat")
    fill(folder, 20, seed=4)
    return folder


def content(folder: Path) -> tuple[list[tuple[object, ...]], dict[int, bytes]]:
    """All tables but what differs by right, and all vectors."""
    with closing(Store(folder)) as store:
        tables = [name for (name,) in store.db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [(table, *row) for table in sorted(tables) for row in store.db.execute(f"SELECT * FROM {table}")]
        rows = [tuple(value for value in row if not str(value).startswith(_device(folder))) for row in rows]
        contents, vectors = store.source(store.locations("text")).all()
        return rows, {id_: vector.tobytes() for id_, vector in zip(contents.tolist(), vectors, strict=True)}


def _device(folder: Path) -> str:
    return f"{folder.stat().st_dev}-"  # an index file's state begins with it


def hits(folder: Path) -> list[tuple[str, float]]:
    with closing(Store(folder)) as store:
        (found,) = Retrieval(store).search(unit_rows(np.ones((1, SPACE.dim))), k=1000)
        return [(hit.path, hit.score) for hit in found]


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Inode and bytes of all files."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def flip(path: Path, position: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def shard(folder: Path) -> Path:
    return sorted((folder / "vectors").iterdir())[1]


def index_file(folder: Path) -> Path:
    (path,) = (folder / "index").iterdir()
    return path


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Callable[[], set[str]]]:
    """What lies in the folder of all tests; nothing hidden may be left at the end."""
    yield lambda: set(os.listdir(tmp_path))
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


# What comes back


def test_backup_is_a_collection_of_its_own(folder: Path, tmp_path: Path, left: Callable[[], set[str]]) -> None:
    before = content(folder)
    done = backup(folder, tmp_path / "b")
    assert (done.notes, done.generation, done.files) == ([], 5, 6)
    assert content(tmp_path / "b") == content(folder) == before
    assert hits(tmp_path / "b") == hits(folder)
    assert verify(tmp_path / "b", read_data=True).findings == []
    inodes = [{inode for inode, _ in tree(place).values()} for place in (folder, tmp_path / "b")]
    assert not inodes[0] & inodes[1]  # a link's bytes rot with the original's
    with closing(Store(tmp_path / "b")) as store:
        assert usable_index(store, store.index_files()["text"]) is not None
    for path in [tmp_path / "b", *(tmp_path / "b").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert left() == {"c", "b"}


def test_restored_collection_is_the_one_that_was_backed_up(
    folder: Path, tmp_path: Path, left: Callable[[], set[str]]
) -> None:
    before, ranked = content(folder), hits(folder)
    inode = (folder / DATABASE).stat().st_ino
    backup(folder, tmp_path / "b")
    fill(folder, 5, seed=9)
    newer = content(folder)
    done = restore(tmp_path / "b", folder)
    assert (content(folder), hits(folder)) == (before, ranked)
    assert not (folder / MARK).exists()
    assert (folder / DATABASE).stat().st_ino != inode  # so that who has it open can tell
    assert done.moved_to is not None
    assert content(done.moved_to) == newer
    assert left() == {"c", "b", done.moved_to.name}
    for place in (folder, done.moved_to, tmp_path / "b"):
        assert verify(place, read_data=True).findings == []
    assert not (done.moved_to / "lock.holder").exists()
    fill(folder, 5, seed=9)  # and it goes on
    assert content(folder)[1] == newer[1]


def test_restore_to_where_nothing_is(folder: Path, tmp_path: Path) -> None:
    backup(folder, tmp_path / "b")
    before = content(folder)
    shutil.rmtree(folder)
    assert restore(tmp_path / "b", folder).moved_to is None
    assert content(folder) == before
    (tmp_path / "empty").mkdir()
    assert restore(tmp_path / "b", tmp_path / "empty").moved_to is None
    assert content(tmp_path / "empty") == before


def test_restore_over_what_is_left_of_a_collection(folder: Path, tmp_path: Path) -> None:
    before = content(folder)
    backup(folder, tmp_path / "b")
    (folder / DATABASE).unlink()
    moved = restore(tmp_path / "b", folder).moved_to
    assert moved is not None
    assert not (moved / DATABASE).exists()
    assert content(folder) == before
    flip(folder / DATABASE, 30)
    assert restore(tmp_path / "b", folder).moved_to not in (None, moved)
    assert content(folder) == before


def test_folders_without_an_exchange_of_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: Callable[[], set[str]]
) -> None:
    monkeypatch.setattr(backup_module, "exchange", lambda one, other: False)
    backup(folder, tmp_path / "b")
    before = content(folder)
    fill(folder, 5, seed=9)
    newer = content(folder)
    moved = restore(tmp_path / "b", folder).moved_to
    assert moved is not None
    assert (content(folder), content(moved)) == (before, newer)
    backup(folder, tmp_path / "b", replace=True)
    assert content(tmp_path / "b") == before
    # Killed between the two renames: the next run puts the earlier backup back before it does anything.
    room = tmp_path / ".b.trivium-draft"
    room.mkdir()
    (tmp_path / "b").rename(room / "old")
    with pytest.raises(CollectionError, match="is a backup already"):
        backup(folder, tmp_path / "b")
    assert content(tmp_path / "b") == before


def test_exchange(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange two names")
    assert (os.listdir(tmp_path / "a"), os.listdir(tmp_path / "b")) == (["b"], ["a"])
    with pytest.raises(FileNotFoundError, match="none"):
        exchange(tmp_path / "a", tmp_path / "none")


# Again


def test_earlier_backup_is_replaced_by_what_is_new(folder: Path, tmp_path: Path, left: Callable[[], set[str]]) -> None:
    first = backup(folder, tmp_path / "b")
    old = tree(tmp_path / "b")
    fill(folder, 5, seed=9)
    second = backup(folder, tmp_path / "b", replace=True)
    assert content(tmp_path / "b") == content(folder)
    new = tree(tmp_path / "b")
    kept = {name for name in old if name.startswith("vectors/")}
    assert len(kept) == 4
    assert all(new[name] == old[name] for name in kept)
    assert all((tmp_path / "b" / name).stat().st_nlink == 1 for name in new)
    assert second.bytes_kept == sum(len(old[name][1]) for name in kept)
    assert second.bytes_copied < first.bytes_copied
    assert verify(tmp_path / "b", read_data=True).findings == []
    shrink(folder, 60)
    backup(folder, tmp_path / "b", replace=True)
    assert content(tmp_path / "b") == content(folder)
    assert left() == {"c", "b"}


def test_rot_in_the_earlier_backup_is_not_kept(folder: Path, tmp_path: Path) -> None:
    backup(folder, tmp_path / "b")
    flip(shard(tmp_path / "b"))
    (note,) = backup(folder, tmp_path / "b", replace=True).notes
    assert f"{shard(tmp_path / 'b')} was damaged and was copied anew" in note
    assert verify(tmp_path / "b", read_data=True).findings == []


def test_killed_backup_is_gone_on_with(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(done: int, to_do: int) -> None:
        if done > to_do / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(folder, tmp_path / "b", progress=interrupt)
    draft = tmp_path / ".b.trivium-draft" / "draft"
    copied = {path.name for path in (draft / "vectors").iterdir()}
    assert len(copied) >= 2
    assert not (tmp_path / "b").exists()
    flip(draft / "vectors" / min(copied))  # what is not whole is copied anew
    whole = backup(folder, tmp_path / "w")
    done = backup(folder, tmp_path / "b")
    assert 0 < done.bytes_copied < whole.bytes_copied
    assert content(tmp_path / "b") == content(folder)
    assert verify(tmp_path / "b", read_data=True).findings == []


# While others write


@pytest.mark.parametrize("times", [1, snapshot_module.ATTEMPTS + 3])
def test_files_that_a_compaction_deletes_meanwhile(
    times: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is always quicker, until it has to wait: then it is told that the database is locked."""
    copy_files, left, waited = snapshot_module._Copier.copy_files, list(range(times)), []
    monkeypatch.setattr("trivium.pipeline.store.database.BUSY_SECONDS", 0)

    def shrink_first(self: object, *, is_last: bool = False) -> bool:
        if left and is_last:
            with pytest.raises(CollectionError, match="database is locked"):
                shrink(folder, 10)
            waited.append(is_last)
        elif left:
            shrink(folder, 10)
            fill(folder, 3, seed=100 + left.pop())
        return copy_files(self, is_last=is_last)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshot_module._Copier, "copy_files", shrink_first)
    done = backup(folder, tmp_path / "b")
    assert waited == ([] if times == 1 else [True])
    assert verify(tmp_path / "b", read_data=True).findings == []
    assert content(tmp_path / "b") == content(folder)
    assert done.generation == Store(folder).generation


def test_one_backup_to_a_place_at_a_time(folder: Path, tmp_path: Path) -> None:
    room = tmp_path / ".b.trivium-draft"
    room.mkdir()
    with writer_lock(room), pytest.raises(CollectionLockedError, match=f"pid {os.getpid()}"):
        backup(folder, tmp_path / "b")
    backup(folder, tmp_path / "b")


def test_collection_that_is_being_written_is_not_replaced(
    folder: Path, tmp_path: Path, left: Callable[[], set[str]]
) -> None:
    backup(folder, tmp_path / "b")
    before = tree(folder)
    with closing(Store(folder)) as store, writing(store), pytest.raises(CollectionLockedError, match=f"{os.getpid()}"):
        restore(tmp_path / "b", folder)
    assert tree(folder) == before
    assert {name for name in left() if "before-restore" in name} == set()


# Damage


def test_damage_is_found_and_what_was_there_is_kept(folder: Path, tmp_path: Path, left: Callable[[], set[str]]) -> None:
    backup(folder, tmp_path / "b")
    old = tree(tmp_path / "b")
    fill(folder, 9, seed=9)
    for path in sorted((folder / "vectors").iterdir())[-1:]:
        for position in (-1, 3, 100):
            flip(path, position)
            with pytest.raises(CollectionError, match=rf"{path} is damaged.*Nothing was copied.*trivium restore"):
                backup(folder, tmp_path / "b", replace=True)
            with pytest.raises(CollectionError, match=rf"{path} is damaged"):
                backup(folder, tmp_path / "other")
            flip(path, position)
    assert tree(tmp_path / "b") == old
    assert left() == {"c", "b"}


def test_flipped_bits_in_the_database_are_found(folder: Path, tmp_path: Path) -> None:
    data = (folder / DATABASE).read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(len(data), size=40).tolist():
        flip(folder / DATABASE, position)
        with pytest.raises(CollectionError, match=r"damaged|not a Trivium collection|has format|cannot read"):
            backup(folder, tmp_path / "b")
        assert not (tmp_path / "b").exists()
        (folder / DATABASE).write_bytes(data)
    backup(folder, tmp_path / "b")


def test_flipped_bits_in_a_backup_are_found_by_restore(folder: Path, tmp_path: Path) -> None:
    backup(folder, tmp_path / "b")
    before = tree(folder)
    for path in (shard(tmp_path / "b"), tmp_path / "b" / DATABASE):
        flip(path, 200)
        with pytest.raises(CollectionError, match=f"{path} is damaged"):
            restore(tmp_path / "b", folder)
        flip(path, 200)
    assert tree(folder) == before
    shard(tmp_path / "b").unlink()
    with pytest.raises(CollectionError, match="is missing"):
        restore(tmp_path / "b", folder)
    assert tree(folder) == before


@pytest.mark.parametrize("harm", [flip, Path.unlink], ids=["damaged", "missing"])
def test_damaged_index_file_is_left_out(harm: Callable[[Path], object], folder: Path, tmp_path: Path) -> None:
    path, before = index_file(folder), hits(folder)
    harm(path)
    (note,) = backup(folder, tmp_path / "b").notes
    assert note.startswith(str(path))
    assert "trivium rebuild" in note
    assert verify(tmp_path / "b", read_data=True).findings == []
    after = hits(tmp_path / "b")
    assert [path for path, _ in after] == [path for path, _ in before]
    assert [score for _, score in after] == pytest.approx([score for _, score in before], abs=1e-5)


def test_database_without_a_checksum_is_told(folder: Path, tmp_path: Path) -> None:
    (folder / CHECKSUM).unlink()
    (note,) = backup(folder, tmp_path / "b").notes
    assert "has no checksum of its present state" in note
    assert backup(folder, tmp_path / "b2").notes == [note]
    assert restore(tmp_path / "b", tmp_path / "r").snapshot.notes == []
    (tmp_path / "b" / CHECKSUM).write_text("{")
    assert "has no checksum" in restore(tmp_path / "b", tmp_path / "r2").snapshot.notes[0]


# What is refused


def test_what_is_at_the_target_is_not_replaced(folder: Path, tmp_path: Path, left: Callable[[], set[str]]) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "x.tex").touch()
    shutil.copytree(folder, tmp_path / "copy")
    for name in ("thesis", "copy", "thesis/x.tex"):
        for replace in (False, True):
            with pytest.raises(CollectionError, match="is there already, and is no backup of"):
                backup(folder, tmp_path / name, replace=replace)
    with pytest.raises(CollectionError, match="is there already, and is no collection"):
        restore(folder, tmp_path / "thesis")
    backup(folder, tmp_path / "b")
    with pytest.raises(CollectionError, match="is a backup already: replace it with --replace"):
        backup(folder, tmp_path / "b")
    with pytest.raises(CollectionError, match=rf"is a backup of {folder}, not of {tmp_path / 'copy'}"):
        backup(tmp_path / "copy", tmp_path / "b", replace=True)
    fill(tmp_path / "b", 3, seed=8)
    with pytest.raises(CollectionError, match="was written to since it was made"):
        backup(folder, tmp_path / "b", replace=True)
    assert left() == {"c", "b", "copy", "thesis"}


def test_places_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    for target in (folder, folder / "b", tmp_path):
        with pytest.raises(CollectionError, match="lie within each other"):
            backup(folder, target)
    with pytest.raises(CollectionError, match=r"there is no folder .*: make it, or connect the disk"):
        backup(folder, tmp_path / "none" / "b")
    with pytest.raises(CollectionError, match="no collection at"):
        backup(tmp_path / "none", tmp_path / "b")
    with pytest.raises(CollectionError, match="is no backup: it has no"):
        restore(tmp_path / "none", folder)
    room = tmp_path / ".b.trivium-draft"
    room.mkdir()
    (room / "mine").touch()
    with pytest.raises(CollectionError, match="is in the way, and is none of Trivium's"):
        backup(folder, tmp_path / "b")
    assert (room / "mine").exists()


def test_no_room(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: Callable[[], set[str]]) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5_000))
    with pytest.raises(CollectionError, match=r"no room for a copy of .*c .* takes [\d,]+ bytes, 5,000 are free"):
        backup(folder, tmp_path / "b")
    assert left() == {"c"}


def test_shard_that_is_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    path = shard(folder)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CollectionError, match=r"cannot copy .* what was there before is kept"):
        backup(folder, tmp_path / "b")


def test_names_that_lead_out_of_the_collection(folder: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as db:
        db.execute("UPDATE shard SET name = '../../x-' || substr(sha256, 1, 16) || '.npy' WHERE id = 2")
    with pytest.raises(CollectionError, match=r"is damaged: it contradicts itself: its record of shard 2 makes no"):
        backup(folder, tmp_path / "b")


# From Python and the command line


def test_collection_backs_itself_up(collection: Collection, tmp_path: Path) -> None:
    done = collection.backup(tmp_path / "b")
    assert done.files == 1 + len(list((tmp_path / "b" / "vectors").iterdir()))
    assert verify(tmp_path / "b", read_data=True).findings == []


def test_commands(folder: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    before, target = content(folder), str(tmp_path / "b")
    status, out, _ = run("backup", str(folder), target)
    assert status == 0
    assert f"{target} is a backup of {folder}, generation 5\n" in out
    assert run("backup", str(folder), target)[0] == 1
    told = json.loads(run("backup", str(folder), target, "--replace", "--json")[1])
    assert (told["generation"], told["notes"], told["bytes_kept"] > 0) == (5, [], True)
    assert run("verify", target, "--read-data")[0] == 0
    status, out, _ = run("restore", target, str(folder))
    (moved,) = tmp_path.glob("c.before-restore-*")
    assert status == 0
    assert f"what was there is now {moved}" in out
    assert content(folder) == content(moved) == before
    told = json.loads(run("restore", target, str(tmp_path / "r"), "--json")[1])
    assert (told["generation"], told["moved_to"]) == (5, None)
    (folder / DATABASE).write_bytes(b"")
    status, _, err = run("backup", str(folder), str(tmp_path / "x"))
    assert (status, "Traceback" in err) == (1, False)


def test_a_strangers_index_file_is_left_out(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, tmp_path / "strange")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another"))  # as on another machine
    done = restore(tmp_path / "strange", tmp_path / "restored")
    assert any("was not made here by this Trivium, and was left out" in note for note in done.snapshot.notes)
    assert not list((tmp_path / "restored" / "index").iterdir())
    assert verify(tmp_path / "restored", read_data=True).findings == []


@pytest.mark.parametrize("place", ["notes.txt", "@eaDir/x", "vectors/mine.txt", "index/thesis/x"])
def test_replace_deletes_nothing_of_others(folder: Path, tmp_path: Path, place: str) -> None:
    backup(folder, tmp_path / "b")
    (tmp_path / "b" / place).parent.mkdir(exist_ok=True)
    (tmp_path / "b" / place).write_text("precious")
    with pytest.raises(CollectionError, match="is none of the backup's, and would be lost: move it away"):
        backup(folder, tmp_path / "b", replace=True)
    assert (tmp_path / "b" / place).read_text() == "precious"


@pytest.mark.parametrize("name", ["draft", "draft/vectors", "draft/index", "draft/collection.db", "old", "lock"])
def test_a_strangers_draft_is_not_gone_on_with(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "thesis.docx").write_text("precious")
    link = tmp_path / ".b.trivium-draft" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "victim")
    for act in (lambda: backup(folder, tmp_path / "b"), lambda: restore(folder, tmp_path / "b")):
        with pytest.raises(CollectionError, match="is in the way, and is none of Trivium's"):
            act()
    assert os.listdir(tmp_path / "victim") == ["thesis.docx"]
    assert link.is_symlink()


def test_what_is_in_an_old_folder_is_not_deleted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".b.trivium-draft" / "old").mkdir(parents=True)
    (tmp_path / ".b.trivium-draft" / "old" / "thesis.docx").write_text("precious")
    with pytest.raises(CollectionError, match="is in the way"):
        backup(folder, tmp_path / "b")
    assert (tmp_path / ".b.trivium-draft" / "old" / "thesis.docx").exists()


def test_a_mark_that_is_a_pipe_does_not_hang(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "b" / MARK)
    with pytest.raises(CollectionError, match="is no backup of"):
        backup(folder, tmp_path / "b", replace=True)


def test_replace_finds_a_shard_that_is_missing(folder: Path, tmp_path: Path) -> None:
    backup(folder, tmp_path / "b")
    shard(folder).unlink()
    with pytest.raises(CollectionError, match="is missing"):
        backup(folder, tmp_path / "b", replace=True)
    assert verify(tmp_path / "b", read_data=True).is_sound


def test_what_is_no_backup_is_not_restored(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    for source in ("nowhere", "media"):
        with pytest.raises(CollectionError, match=r"is no backup: it has no collection\.db"):
            restore(tmp_path / source, tmp_path / "c")
