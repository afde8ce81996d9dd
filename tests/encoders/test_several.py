"""One item or several: what stands for one, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trivium.encoders.several import is_one, listed, path_of, paths_of

ONE = ["", "/a", b"ab", Path("/a"), 7, Image.new("RGB", (2, 2)), np.zeros((2, 2, 3), np.uint8), (np.zeros(8), 8000)]


@pytest.mark.parametrize("item", ONE, ids=lambda item: type(item).__name__)
def test_one(item: object) -> None:
    assert is_one(item)
    (found,) = listed(item, "items")
    assert found is item


@pytest.mark.parametrize(
    "items",
    [[], ["a", "b"], ("a", "b"), {"a"}, iter("ab"), np.array(["a", "b"]), np.zeros((2, 2, 2, 3))],
    ids=lambda items: type(items).__name__,
)
def test_several(items: object) -> None:
    assert not is_one(items)
    assert isinstance(listed(items, "items"), list)


def test_what_is_neither() -> None:
    with pytest.raises(TypeError, match="items must be one item or an iterable of items, got None"):
        listed(None, "items")
    with pytest.raises(TypeError, match="items must be one item or an iterable of items, got dict"):
        listed({"a": 1}, "items")


def test_paths() -> None:
    assert paths_of("/a", "paths") == paths_of(Path("/a"), "paths") == paths_of(["/a"], "paths") == ["/a"]
    assert path_of(b"/\xff", "path") == "/\udcff"
    for empty in ("", b""):
        with pytest.raises(ValueError, match=r"path is an empty path: name a file or a folder, '\.' for the current"):
            path_of(empty, "path")
    with pytest.raises(ValueError, match="empty"):
        paths_of(["/a", ""], "paths")
    with pytest.raises(TypeError, match=r"path must be a path \(str or os.PathLike\), got int: 7"):
        path_of(7, "path")  # type: ignore[arg-type]
