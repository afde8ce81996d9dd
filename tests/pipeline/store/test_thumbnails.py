"""Thumbnails are written whole, for their owner, by content; what else lies there is neither read nor deleted."""

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from trivium.pipeline.collection import Collection
from trivium.pipeline.store.thumbnails import (
    FOLDER,
    MAX_BYTES,
    count_thumbnails,
    drop_thumbnails,
    is_own_folder,
    read_thumbnail,
    write_thumbnail,
)

ONE, OTHER = bytes(range(32)), bytes(range(1, 33))


def webp(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 10), colour).save(file, "WEBP")
    return file.getvalue()


def path_of(folder: Path, sha256: bytes) -> Path:
    return folder / FOLDER / sha256.hex()[:2] / f"{sha256.hex()}.webp"


def test_written_and_read(tmp_path: Path) -> None:
    write_thumbnail(tmp_path, ONE, webp())
    write_thumbnail(tmp_path, ONE, webp("blue"))  # again
    assert read_thumbnail(tmp_path, ONE) == webp("blue")
    assert read_thumbnail(tmp_path, OTHER) is None
    assert count_thumbnails(tmp_path) == (1, len(webp("blue")))
    assert path_of(tmp_path, ONE).stat().st_mode & 0o777 == 0o600
    assert path_of(tmp_path, ONE).parent.stat().st_mode & 0o077 == 0
    assert os.listdir(path_of(tmp_path, ONE).parent) == [f"{ONE.hex()}.webp"]


@pytest.mark.parametrize(
    "content",
    [b"", webp()[:-3], b"<svg xmlns='http://www.w3.org/2000/svg'/>", webp() + b"\0", b"\0" * 400],
)
def test_what_is_not_whole_is_none(tmp_path: Path, content: bytes) -> None:
    write_thumbnail(tmp_path, ONE, content)
    assert read_thumbnail(tmp_path, ONE) is None


def test_large_ones_and_links_are_not_read(tmp_path: Path) -> None:
    size = MAX_BYTES + 10
    write_thumbnail(tmp_path, ONE, b"RIFF" + (size - 8).to_bytes(4, "little") + b"WEBP" + bytes(size - 12))
    assert read_thumbnail(tmp_path, ONE) is None
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / FOLDER).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="is a link"):
        write_thumbnail(tmp_path / "linked", ONE, webp())
    assert not os.listdir(tmp_path / "elsewhere")
    assert count_thumbnails(tmp_path / "linked") == (0, 0)


def test_only_what_is_ours_and_unwanted_goes(tmp_path: Path) -> None:
    write_thumbnail(tmp_path, ONE, webp())
    write_thumbnail(tmp_path, OTHER, webp())
    assert is_own_folder(tmp_path / FOLDER)
    draft = path_of(tmp_path, ONE).with_name(f".{ONE.hex()}.0123abcd.new")
    draft.write_bytes(b"half")
    letter = path_of(tmp_path, ONE).with_name("letter.txt")
    letter.write_text("dear")
    assert not is_own_folder(tmp_path / FOLDER)
    assert drop_thumbnails(tmp_path, lambda sha256: sha256 == OTHER) == 1
    assert read_thumbnail(tmp_path, ONE) is None
    assert read_thumbnail(tmp_path, OTHER) == webp()
    assert letter.exists()
    assert not draft.exists()


def test_indexing_makes_them_and_compaction_drops_them(collection: Collection, media: Path) -> None:
    info = collection.info()
    assert info.thumbnails == 3
    assert info.thumbnail_bytes > 100
    assert collection.compact().thumbnails_removed == 0
    collection.remove([media / "red.png"])
    assert collection.compact().thumbnails_removed == 1
    assert collection.info().thumbnails == 2


def test_none_are_made_if_that_is_asked_until_it_is_otherwise(tmp_path: Path, media: Path, picture, space) -> None:
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(media, thumbnails=False)
    picture(media / "new.png", "white")
    collection.add(media)
    assert collection.info().thumbnails == 0
    assert not (tmp_path / "c" / FOLDER).exists()
    picture(media / "newer.png", "black")
    collection.add(media, thumbnails=True)
    assert collection.info().thumbnails == 1


def test_lost_ones_are_made_again_of_the_same_file_only(collection: Collection, media: Path, picture) -> None:
    paths = {str(media / name): None for name in ("red.png", "blue.jpg", "note.md")}
    before = collection.thumbnails(paths)
    assert set(before) == {str(media / "red.png"), str(media / "blue.jpg")}
    assert drop_thumbnails(collection.folder, lambda _: False) == 3
    picture(media / "blue.jpg", "black")  # changed
    assert set(collection.thumbnails(paths)) == {str(media / "red.png")}
    assert collection.info().thumbnails == 1
