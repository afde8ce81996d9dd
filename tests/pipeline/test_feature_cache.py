"""Kept features: what was kept comes back, damage is noticed, and several processes get along."""

import hashlib
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from trivium.encoders.base import Features
from trivium.pipeline import feature_cache
from trivium.pipeline.feature_cache import FeatureCache


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
        patch.setattr(feature_cache, "SCHEMA", feature_cache.SCHEMA + "PRAGMA max_page_count = 1;")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            cache.save(keys(*range(5000)), features(5000))
    assert_same(cache.load(keys("a"))[1], features(1), [0])


def test_processes_that_keep_at_the_same_time(tmp_path: Path) -> None:
    program = """
import hashlib, sys
from pathlib import Path
import numpy as np
from trivium.encoders.base import Features
from trivium.pipeline.feature_cache import FeatureCache
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
