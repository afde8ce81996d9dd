"""A full disk, made by a small file system and a filler, and a limit on the size of files."""

import shutil
from pathlib import Path
from typing import Any

import pytest

FILES = 200
REMOVED = 50
PAGE = 4096


def fill(disk: Path, *, leaving: int) -> Path:
    """Fill the disk up to some pages."""
    filler = disk / "filler"
    free = shutil.disk_usage(disk).free
    filler.write_bytes(b"\0" * (free - leaving * PAGE))
    assert shutil.disk_usage(disk).free == leaving * PAGE
    return filler


def life(folder: Path, files: list[str]) -> dict[str, Any]:
    return {"do": "live", "folder": str(folder), "kind": "sq8", "runs": [files], "paths": files[:REMOVED]}


def check_refusal(outcome: Any, audit: Any, folder: Path) -> None:
    assert outcome.code == 1, f"not a plain error: {outcome.lines}"
    assert outcome.lines[-1].startswith("CollectionError"), outcome.lines
    assert "damaged" not in outcome.lines[-1], outcome.lines
    found = audit.examine(folder)
    assert (0 if found is None else len(found.paths)) >= outcome.acknowledged - REMOVED


def check_end(audit: Any, folder: Path, files: list[str]) -> None:
    found = audit.examine(folder, whole=True)
    assert found.paths == set(files[REMOVED:])
    assert found.vectors == FILES - REMOVED
    assert found.has_index


@pytest.mark.parametrize("step", [40, pytest.param(1, marks=pytest.mark.slow)])
def test_full_disk(step: int, server: Any, audit: Any, notes: Any, small_disk: Path) -> None:
    """With room for 0, 1, 2, ... pages, until there is enough."""
    files = notes(FILES)
    folder = small_disk / "c"
    refused = pages = 0
    while True:
        filler = fill(small_disk, leaving=pages)
        outcome = server.run_one(life(folder, files))
        if outcome.code:
            check_refusal(outcome, audit, folder)
            filler.unlink()
            server.run_one(life(folder, files)).require_done()
            refused += 1
        check_end(audit, folder, files)
        filler.unlink(missing_ok=True)
        shutil.rmtree(folder)
        if not outcome.code:
            break
        pages += step
    assert refused >= 2
    print(f"\ndisk full after 0 to {pages} pages in steps of {step}: {refused} plain errors, each resumed")


@pytest.mark.parametrize("step", [18, pytest.param(1, marks=pytest.mark.slow)])
def test_limit_on_the_size_of_files(step: int, server: Any, audit: Any, notes: Any, scratch: Path) -> None:
    files = notes(FILES)
    folder = scratch / "c"
    refused, pages = 0, 1
    while True:
        limit = pages * PAGE // 2
        outcome = server.run_one({**life(folder, files), "file_size_limit": limit})
        if not outcome.code:
            break
        check_refusal(outcome, audit, folder)
        server.run_one(life(folder, files)).require_done()
        check_end(audit, folder, files)
        shutil.rmtree(folder)
        refused += 1
        pages += step
    check_end(audit, folder, files)
    assert refused >= 2
    print(f"\nfiles of at most {PAGE // 2} to {limit} bytes: {refused} plain errors, each resumed")
