"""Kept features: what was kept comes back, damage is noticed, and several processes get along."""

import hashlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.encoders.base import Features
from trivium.pipeline.features import cache as feature_cache
from trivium.pipeline.features.cache import FeatureCache


def keys(*names: object) -> list[bytes]:
    return [hashlib.sha256(str(name).encode()).digest() for name in names]


def features(count: int, *, seed: int = 0, width: int = 4) -> Features:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, width + 5)).astype(np.float32)
    return Features(
        pooled=rows[:, :width], logits={"b": rows[:, width:-3]}, layers={"x": rows[:, -3:-2], "w": rows[:, -2:]}
    )


def assert_same(found: Features | None, expected: Features, rows: list[int]) -> None:
    assert found is not None
    assert found.logits.keys() == expected.logits.keys()
    assert found.layers.keys() == expected.layers.keys()
    np.testing.assert_array_equal(found.pooled, expected.pooled[rows])
    for name in expected.logits:
        np.testing.assert_array_equal(found.logits[name], expected.logits[name][rows])
    for name in expected.layers:
        np.testing.assert_array_equal(found.layers[name], expected.layers[name][rows])


def test_what_is_kept_comes_back_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "KEYS_AT_ONCE", 3)
    cache, known = FeatureCache("r", folder=tmp_path), features(10)
    assert cache.load(keys(1)) == ({}, None)
    cache.save(keys(*range(6)), known.each(lambda rows: rows[:6]))
    cache.save(keys(*range(6, 10)), known.each(lambda rows: rows[6:]))
    asked = keys(7, "no", 0, 9, 3, 0, 5, 4)
    row_of, found = FeatureCache("r", folder=tmp_path).load(asked)
    assert row_of.keys() == set(keys(0, 3, 4, 5, 7, 9))
    places = [row_of[key] for key in keys(7, 0, 9, 3, 5, 4)]
    assert found is not None
    assert_same(found.each(lambda rows: rows[places]), known, [7, 0, 9, 3, 5, 4])
    assert cache.load([]) == ({}, None)
    assert cache.load(keys("no")) == ({}, None)
    assert FeatureCache("other", folder=tmp_path).load(keys(1)) == ({}, None)


def test_the_newest_counts(tmp_path: Path) -> None:
    cache = FeatureCache("r", folder=tmp_path)
    for seed in (0, 1):
        cache.save(keys("a"), features(1, seed=seed))
    assert_same(cache.load(keys("a"))[1], features(1, seed=1), [0])


def test_another_layout_begins_anew(tmp_path: Path) -> None:
    cache = FeatureCache("r", folder=tmp_path)
    cache.save(keys("a"), features(1))
    cache.save(keys("b"), features(1, width=6))
    assert cache.load(keys("a")) == ({}, None)
    assert_same(cache.load(keys("b"))[1], features(1, width=6), [0])


@pytest.mark.parametrize("damage", ["bit", "short", "layout", "text", "cut", "empty"])
def test_damage_is_noticed_and_made_good(tmp_path: Path, damage: str) -> None:
    cache, known = FeatureCache("r", folder=tmp_path), features(300)
    cache.save(keys(*range(300)), known)
    if damage in ("bit", "short", "layout"):
        statement = {
            "bit": "UPDATE item SET row = zeroblob(length(row)) WHERE rowid = 1",
            "short": "UPDATE item SET row = x'00' WHERE rowid = 1",
            "layout": """UPDATE layout SET widths = '{"pooled": 1e99}'""",
        }[damage]
        with closing(sqlite3.connect(cache.path)) as db, db:
            db.execute(statement)
    else:
        data = cache.path.read_bytes()
        cache.path.write_bytes({"text": b"no database" * 99, "cut": data[: len(data) // 2], "empty": b""}[damage])
    row_of, found = cache.load(keys(*range(300)))
    kept = list(range(1, 300)) if damage in ("bit", "short") else []
    assert row_of.keys() == set(keys(*kept))
    if kept:
        assert found is not None
        assert_same(found.each(lambda rows: rows[[row_of[key] for key in keys(*kept)]]), known, kept)
    cache.save(keys(*range(300)), known)
    row_of, found = cache.load(keys(*range(300)))
    assert found is not None
    assert_same(found.each(lambda rows: rows[[row_of[key] for key in keys(*range(300))]]), known, list(range(300)))


def test_a_full_disk_is_told_and_nothing_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache("r", folder=tmp_path)
    cache.save(keys("a"), features(1))
    with monkeypatch.context() as patch:
        patch.setattr(feature_cache, "SETTINGS", feature_cache.SETTINGS + "PRAGMA max_page_count = 1;")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            cache.save(keys(*range(5000)), features(5000))
    assert_same(cache.load(keys("a"))[1], features(1), [0])


def test_processes_that_keep_at_the_same_time(tmp_path: Path) -> None:
    program = """
import hashlib, sys
from pathlib import Path
import numpy as np
from trivium.encoders.base import Features
from trivium.pipeline.features.cache import FeatureCache
cache = FeatureCache("r", folder=Path(sys.argv[1]))
for number in range(30):
    key = hashlib.sha256(f"{sys.argv[2]} {number}".encode()).digest()
    cache.save([key], Features(pooled=np.full((1, 3), number, np.float32)))
"""
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name]) for name in "ab"]
    assert [process.wait(120) for process in running] == [0, 0]
    asked = keys(*(f"{name} {number}" for name in "ab" for number in range(30)))
    row_of, found = FeatureCache("r", folder=tmp_path).load(asked)
    assert found is not None
    assert [int(found.pooled[row_of[key], 0]) for key in asked] == [*range(30), *range(30)]


# For its owner's eyes only


def modes(*paths: Path) -> list[int]:
    return [path.stat().st_mode & 0o777 for path in paths]


@pytest.fixture
def open_umask() -> Iterator[None]:
    """The umask that takes nothing away."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_others_see_nothing(cache: Path, open_umask: None) -> None:
    kept = FeatureCache("r")
    journals: list[int] = []
    kept.save(keys("a"), features(1))
    with closing(sqlite3.connect(kept.path)) as db, db:
        db.execute("DELETE FROM item")
        journals += modes(kept.path.with_name("features.sqlite-journal"))
    assert journals == [0o600]
    assert modes(kept.path, kept.path.parent, kept.path.parent.parent) == [0o600, 0o700, 0o700]


def test_what_others_could_see_is_closed_to_them(cache: Path, open_umask: None) -> None:
    kept = FeatureCache("r")
    kept.save(keys("a"), features(1))
    for path in (kept.path, kept.path.parent, kept.path.parent.parent):
        path.chmod(0o755)
    assert_same(kept.load(keys("a"))[1], features(1), [0])
    assert modes(kept.path, kept.path.parent, kept.path.parent.parent) == [0o700, 0o700, 0o700]


def test_a_folder_of_the_users_stays_as_it_is(tmp_path: Path, open_umask: None) -> None:
    (tmp_path / "theirs").mkdir(mode=0o755)
    kept = FeatureCache("r", folder=tmp_path / "theirs")
    kept.save(keys("a"), features(1))
    assert modes(tmp_path / "theirs", kept.path.parent, kept.path) == [0o755, 0o700, 0o600]


# Nothing outside is touched


@pytest.mark.parametrize("name", ["features.sqlite", "features.sqlite-journal"])
@pytest.mark.parametrize("link", ["symbolic", "hard", "dangling"])
def test_no_link_is_followed(tmp_path: Path, name: str, link: str) -> None:
    victim = tmp_path / "victim"
    FeatureCache("v", folder=tmp_path).save(keys("b"), features(1))
    victim.write_bytes((tmp_path / "v" / "features.sqlite").read_bytes())
    before = victim.read_bytes()
    kept = FeatureCache("r", folder=tmp_path)
    kept.path.parent.mkdir()
    place = kept.path.with_name(name)
    match link:
        case "symbolic":
            place.symlink_to(victim)
        case "hard":
            place.hardlink_to(victim)
        case _:
            place.symlink_to(tmp_path / "none")
    assert kept.load(keys("b")) == ({}, None)
    kept.save(keys("a"), features(1))
    assert_same(kept.load(keys("a"))[1], features(1), [0])
    assert victim.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r", "v", "victim"]
    assert [path.name for path in kept.path.parent.iterdir()] == ["features.sqlite"]


@pytest.mark.parametrize(
    "foreign",
    [
        "CREATE TRIGGER t AFTER INSERT ON item BEGIN DELETE FROM item; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TABLE other (x)",
        "CREATE INDEX i ON item (checksum)",
    ],
)
def test_a_database_that_is_not_ours_is_dropped(tmp_path: Path, foreign: str) -> None:
    cache = FeatureCache("r", folder=tmp_path)
    cache.save(keys("a"), features(1))
    with closing(sqlite3.connect(cache.path)) as db, db:
        db.execute(foreign)
    assert cache.load(keys("a")) == ({}, None)
    cache.save(keys("b"), features(1))
    assert_same(cache.load(keys("a", "b"))[1], features(1), [0])


@pytest.fixture(scope="module")
def sound_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of forty rows, each of ten kilobytes."""
    cache = FeatureCache("r", folder=tmp_path_factory.mktemp("sound"))
    cache.save(keys(*range(40)), features(40, width=2500))
    return cache.path.read_bytes()


@given(
    places=st.lists(st.one_of(st.integers(0, 2000), st.integers(0, 10**9)), min_size=1, max_size=8),
    length=st.sampled_from([1, 1, 1, 20, 5000]),
    value=st.integers(0, 255),
)
@settings(max_examples=150)
def test_no_damage_gives_a_wrong_row_or_an_error(sound_file: bytes, places: list[int], length: int, value: int) -> None:
    data = bytearray(sound_file)
    for place in places:
        start = place % len(data)
        part = data[start : start + length]
        data[start : start + length] = bytes([value]) * len(part)
    known = features(40, width=2500)
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache("r", folder=Path(folder))
        cache.path.parent.mkdir()
        cache.path.write_bytes(data)
        row_of, found = cache.load(keys(*range(40)))
        for number, key in enumerate(keys(*range(40))):
            if key in row_of:
                assert found is not None
                np.testing.assert_array_equal(found.pooled[row_of[key]], known.pooled[number])
        cache.save(keys("new"), features(1, width=2500))
        assert_same(cache.load(keys("new"))[1], features(1, width=2500), [0])


def test_a_row_under_another_key_is_not_believed(tmp_path: Path) -> None:
    cache = FeatureCache("r", folder=tmp_path)
    cache.save(keys("a", "b"), features(2))
    with closing(sqlite3.connect(cache.path)) as db, db:
        ((row, checksum),) = db.execute("SELECT row, checksum FROM item WHERE sha256 = ?", keys("a"))
        db.execute("UPDATE item SET row = ?, checksum = ? WHERE sha256 = ?", (row, checksum, *keys("b")))
    assert cache.load(keys("a", "b"))[0].keys() == set(keys("a"))


# What is deleted


def test_some_are_forgotten(tmp_path: Path) -> None:
    cache = FeatureCache("r", folder=tmp_path)
    cache.save(keys("a", "b", "c"), features(3))
    marked = features(3).pooled[1].tobytes()
    assert marked in cache.path.read_bytes()
    assert cache.forget(keys("b", "no")) == 1
    assert marked not in cache.path.read_bytes()
    assert cache.load(keys("a", "b", "c"))[0].keys() == set(keys("a", "c"))
    cache.path.write_bytes(b"no database" * 99)
    assert cache.forget(keys("a")) == 0


def test_a_file_in_use_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache("r", folder=tmp_path)
    cache.save(keys("a"), features(1))
    monkeypatch.setattr(feature_cache, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(cache.path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            cache.delete()
        db.execute("COMMIT")
    cache.delete()
    assert [*cache.path.parent.iterdir()] == []
    assert cache.load(keys("a")) == ({}, None)
