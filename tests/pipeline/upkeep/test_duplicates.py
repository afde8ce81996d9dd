"""Groups of copies, what they take, and the command that tells of them and deletes nothing."""

import base64
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from assets import ASSETS
from trivium.encoders.base import PLAIN_LOOKS, Space, unit_rows
from trivium.pipeline.collection import Collection
from trivium.pipeline.records import ContentKey, NewItem, Traits
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing
from trivium.pipeline.upkeep.duplicates import find_duplicates


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A photo with an equal file, a hard link and one encoded again; a text with its copy; and others."""
    folder = tmp_path / "media"
    folder.mkdir()
    for name in ("strawberry.jpg", "teacup.webp", "crow.ogg"):
        shutil.copy(ASSETS / name, folder)
    shutil.copy(ASSETS / "strawberry.jpg", folder / "equal.jpg")
    os.link(folder / "strawberry.jpg", folder / "linked.jpg")
    with Image.open(ASSETS / "strawberry.jpg") as image:
        image.convert("RGB").save(folder / "again.png")
    (folder / "a.md").write_text("milk")
    (folder / "b.md").write_text("milk")
    return folder


@pytest.fixture
def made(tmp_path: Path, media: Path, seeing_space: Any) -> Collection:
    collection = Collection.open(tmp_path / "c", space=seeing_space)
    collection.add(media)
    return collection


def told(collection: Collection, *, near: bool) -> list[tuple[str, bool, list[str]]]:
    return [
        (group.kind, group.is_equal, [Path(file.path).name for file in group.files])
        for group in collection.duplicates(near=near).groups
    ]


def test_equal_files(made: Collection) -> None:
    size = (ASSETS / "strawberry.jpg").stat().st_size
    assert told(made, near=False) == [
        ("image", True, ["equal.jpg", "linked.jpg", "strawberry.jpg"]),
        ("text", True, ["a.md", "b.md"]),
    ]
    found = made.duplicates()
    assert [group.freed_bytes for group in found.groups] == [size, 4]  # a second name of a file frees nothing
    assert found.freed_bytes == size + 4


def test_near_ones_are_grouped_with_the_equal_ones(made: Collection, media: Path) -> None:
    assert told(made, near=True) == [
        ("image", False, ["again.png", "equal.jpg", "linked.jpg", "strawberry.jpg"]),  # the largest first
        ("text", True, ["a.md", "b.md"]),
    ]
    (media / "again.png").unlink()
    files = {Path(file.path).name: file for file in made.duplicates(near=True).groups[0].files}
    assert files["again.png"].size_bytes is None
    assert files["again.png"].frees_bytes == 0


def test_the_command(made: Collection, media: Path, tmp_path: Path, run: Any) -> None:
    before = sorted(media.iterdir())
    status, out, _ = run("duplicates", str(made.folder))
    assert status == 0
    assert "1. image: 3 files, equal; 0.0 MB to be freed" in out
    assert str(media / "linked.jpg") in out
    assert out.endswith("Nothing was deleted\n")
    _, out, _ = run("duplicates", str(made.folder), "--near", "--json")
    answer = json.loads(out)
    assert [len(group["files"]) for group in answer["groups"]] == [4, 2]
    assert answer["freed_bytes"] == sum(group["freed_bytes"] for group in answer["groups"])
    page = tmp_path / "page.html"
    assert run("duplicates", str(made.folder), "--near", "--html", str(page))[0] == 0
    shown = re.findall(r'src="data:image/webp;base64,([^"]+)"', page.read_text())
    assert len(shown) == 4
    for data in shown:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.format == "WEBP"
    assert page.read_text().count("</a>") == 6
    assert sorted(media.iterdir()) == before


def store_of(tmp_path: Path, looks: list[int], vectors: np.ndarray) -> Store:
    space = Space(name="made", dim=16, revision="1")
    store = Store.create(tmp_path / "made", space, source="stub")
    keys = [ContentKey("image", number.to_bytes(32, "big")) for number in range(len(looks))]
    items = [
        NewItem(path=f"/{number:06}.png", modality="image", fingerprint="", contents={"content": key})
        for number, key in enumerate(keys)
    ]
    with writing(store) as writer:
        traits = {key: Traits(looks=look) for key, look in zip(keys, looks, strict=True)}
        writer.commit(items, keys, unit_rows(vectors), traits=traits)
    return store


def grouped(store: Store) -> list[list[int]]:
    groups = [[int(Path(file.path).stem) for file in group.files] for group in find_duplicates(store, near=True).groups]
    return sorted(map(sorted, groups))


@pytest.mark.parametrize(
    ("bits", "cosine", "is_copy"),
    [(0, 0.45, False), (6, 0.55, True), (7, 0.55, False), (7, 0.87, True), (16, 0.87, True), (17, 1.0, False)],
)
def test_hash_and_vector_decide_together(tmp_path: Path, bits: int, cosine: float, is_copy: bool) -> None:
    vectors = np.zeros((2, 16))
    vectors[0, 0], vectors[1, :2] = 1.0, (cosine, np.sqrt(1 - cosine**2))
    looks = 1 << 40
    assert grouped(store_of(tmp_path, [looks, looks ^ ((1 << bits) - 1)], vectors)) == ([[0, 1]] if is_copy else [])


def test_a_chain_of_small_changes_is_no_group(tmp_path: Path) -> None:
    """Each is near the next, and the ends are far apart: what is not near the first of a group is not in it."""
    looks = [(1 << 40) ^ ((1 << 5 * step) - 1) for step in range(8)]
    vectors = np.tile(np.eye(16)[0], (8, 1))
    groups = grouped(store_of(tmp_path, looks, vectors))
    assert len(groups) >= 1
    assert all(max(group) - min(group) <= 6 for group in groups)  # at most three steps of five bits to each side


def test_plain_pictures_are_no_copies(tmp_path: Path) -> None:
    assert grouped(store_of(tmp_path, [PLAIN_LOOKS] * 3, np.tile(np.eye(16)[0], (3, 1)))) == []


def test_many_pictures_take_no_square_of_time(tmp_path: Path) -> None:
    """20,000 pictures, 2,000 of them with a copy, and 3,000 that look the same: seconds, and each is in its group."""
    draw = np.random.default_rng(0)
    looks = draw.integers(-(2**63), 2**63, size=15_000, dtype=np.int64)
    vectors = draw.normal(size=(15_000, 16))
    copies = looks[:2000] ^ np.int64(0b101)
    same = np.full(3000, 1234567890123, np.int64)
    all_vectors = np.concatenate(
        [vectors, vectors[:2000], np.eye(16)[np.zeros(3000, int)] + 0.02 * draw.normal(size=(3000, 16))]
    )
    store = store_of(tmp_path, [*looks.tolist(), *copies.tolist(), *same.tolist()], all_vectors)
    groups = grouped(store)
    assert len(groups) == 2001
    assert max(map(len, groups)) == 3000
    assert all([number, 15_000 + number] in groups for number in (0, 77, 1999))
