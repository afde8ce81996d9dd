"""What a stranger, or a bad disk, puts beside a collection's database, or does to the files that it names."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

MAGIC = bytes.fromhex("d9d505f920a163d7")  # of a rollback journal
PAGE = 4096
CHECKSUMS = ["", "{}", "[]", "null", "5", "[" * 3000, '{"fields":5,"check":5}', "\xff", '"x"']
FIELDS = [
    "{}", "[]", "5", "null", '{"changes":-1,"sha256":5}', '{"changes":1e400,"sha256":""}', '{"changes":"x"}',
    '{"changes":NaN,"sha256":[]}', '{"changes":' + "9" * 3000 + ',"sha256":"x"}', "[" * 1500,
]  # fmt: skip
HOLDERS = [b"", b"-1", b"0", b"1", b"9" * 5000, b"\xff", b"1e5", b" 12 ", b"\0"]
FOLDERS = ["index", "vectors"]
LINKS = [
    *FOLDERS, "lock.holder", ".collection.db.sha256.new", "collection.db.sha256", "collection.db-journal",
    ".collection.db.new", "lock", "collection.db",
]  # fmt: skip
STRAYS = [
    "vectors/@eaDir", "index/lost+found", "index/.x.new", "collection.db-journal", "collection.db.sha256",
    ".collection.db.sha256.new", "lock.holder", "lock",
]  # fmt: skip


def change_folder(folder: Path, rng: random.Random) -> str:
    """Change something, and say what."""
    return rng.choice(HOWS)(folder, rng)


def _super_journal(folder: Path, rng: random.Random) -> str:
    """A journal that names another one, which SQLite deletes when it has followed it."""
    victim = os.fsencode(_outside(folder) / "victim.txt")
    pages = (folder / "collection.db").stat().st_size // PAGE
    header = MAGIC + struct.pack(">IIIII", 0, rng.getrandbits(32), pages, 512, PAGE)
    record = struct.pack(">I", 0x40000000 // PAGE + 1) + victim
    record += struct.pack(">II", len(victim), sum(victim)) + MAGIC
    (folder / "collection.db-journal").write_bytes(header.ljust(512, b"\0") + record)
    return "a journal that names victim.txt"


def _journal(folder: Path, rng: random.Random) -> str:
    records, pages = rng.choice((0, 1, 5, 2**32 - 1)), rng.choice((0, 1, 20, 2**31))
    sector, page = rng.choice((512, 0, 3, 2**20)), rng.choice((PAGE, 512, 0, 65536))
    header = MAGIC + struct.pack(">IIIII", records, rng.getrandbits(32), pages, sector, page)
    body = header.ljust(512, b"\0") + rng.randbytes(rng.choice((0, 100, 4104, 9000)))
    (folder / "collection.db-journal").write_bytes(body)
    return f"a journal of {records} records, {pages} pages of {page}, sectors of {sector}, {len(body)} bytes"


def _wal(folder: Path, rng: random.Random) -> str:
    log = struct.pack(">IIII", 0x377F0682, 3007000, PAGE, 0) + rng.randbytes(5_000)
    (folder / "collection.db-wal").write_bytes(log)
    if rng.random() < 0.5:
        return "a write-ahead log"
    data = bytearray((folder / "collection.db").read_bytes())
    data[18:20] = b"\2\2"
    (folder / "collection.db").write_bytes(data)
    (folder / "collection.db-shm").write_bytes(rng.randbytes(32768))
    return "a write-ahead log that the database asks for"


def _checksum(folder: Path, rng: random.Random) -> str:
    text = rng.choice(CHECKSUMS)
    if rng.random() < 0.5:
        fields = rng.choice(FIELDS)
        text = json.dumps({"fields": fields, "check": hashlib.sha256(fields.encode()).hexdigest()}) + "\n"
    (folder / "collection.db.sha256").write_text(text, encoding="latin-1")
    return f"the checksum is {text[:60]!r}"


def _holder(folder: Path, rng: random.Random) -> str:
    pid = rng.choice(HOLDERS)
    (folder / "lock.holder").write_bytes(pid)
    return f"the holder of the lock is {pid[:20]!r}"


def _link(folder: Path, rng: random.Random) -> str:
    name = rng.choice(LINKS)
    target = _outside(folder) / ("victims" if name in FOLDERS else "victim.txt")
    _delete(folder / name)
    (folder / name).symlink_to(target)
    return f"{name} is a link to {target.name}"


def _stray_folder(folder: Path, rng: random.Random) -> str:
    name = rng.choice(STRAYS)
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    (folder / name / "thesis").write_text("mine")
    return f"{name} is a folder"


def _file(folder: Path, rng: random.Random) -> str:
    """A shard or an index file has other bytes than were written; perhaps the database says that it has not."""
    table, part = rng.choice((("shard", "vectors"), ("index_file", "index")))
    path = rng.choice(sorted((folder / part).iterdir()))
    data = bytearray(path.read_bytes())
    how = rng.choice(("truncate", "zero", "nan", "noise", "grow", "empty"))
    numbers = len(data) - 128  # behind a shard's header
    if how == "truncate":
        del data[rng.randrange(len(data)) :]
    elif how == "grow":
        data += bytes(100)
    elif how == "empty":
        data.clear()
    else:
        data[128:] = {"zero": bytes(numbers), "nan": b"\xff" * numbers, "noise": rng.randbytes(numbers)}[how]
    path.write_bytes(data)
    if rng.random() < 0.5:
        return f"{table}: {how}"
    with contextlib.closing(sqlite3.connect(folder / "collection.db", isolation_level=None)) as db:
        fits = len(data), hashlib.sha256(data).hexdigest(), path.name
        db.execute(f"UPDATE {table} SET size = ?, sha256 = ? WHERE name = ?", fits)
    return f"{table}: {how}, and the database fits"


def _missing(folder: Path, rng: random.Random) -> str:
    name = rng.choice((*FOLDERS, "collection.db", "collection.db.sha256", "lock"))
    _delete(folder / name)
    return f"{name} is missing"


HOWS: list[Callable[[Path, random.Random], str]] = [
    *(_super_journal, _journal, _wal, _checksum, _holder, _link, _stray_folder, _file, _missing)
]


def _outside(folder: Path) -> Path:
    return folder.parents[1] / "outside"


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
