"""Frames to tables: every layer that the encoders give is there, and each is a view of its modality."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from numpy.testing import assert_array_equal

from trivium.encoders.base import Features
from trivium.pipeline.features.frames import (
    EncodedFrame,
    MissingModalityWarning,
    blocks_of,
    encode_frame,
    table_of,
    views_of,
)
from trivium.pipeline.fused.table import read_frame


def test_views_of_a_modality_stand_side_by_side() -> None:
    random = np.random.default_rng(0)
    pooled, logits, early, late = (random.normal(size=(2, d)).astype(np.float32) for d in (4, 3, 2, 5))
    image = Features(pooled=pooled, logits={"what": logits}, layers={"early": early, "late": late})
    text = Features(pooled=random.normal(size=(3, 6)).astype(np.float32))
    frame = EncodedFrame(
        features={"text": text, "image": image},
        rows={"text": np.array([0, 1, 2]), "image": np.array([2, 0])},
        count=3,
        failures={},
    )
    views = views_of(frame)
    assert views == {"text": (6,), "image": (7, 2, 5)}
    blocks = blocks_of(views)
    assert blocks == {"text": (0, 6), "image": (6, 20)}
    table = table_of(frame, blocks)
    assert_array_equal(table[:, :6], text.pooled)
    assert_array_equal(table[[2, 0], 6:], np.hstack([pooled, logits, early, late]))
    assert np.isnan(table[1, 6:]).all()
    last = blocks_of({name: widths[:1] for name, widths in views.items()})
    assert_array_equal(table_of(frame, last), table[:, :13])


def contents(path: str) -> bytes:
    return Path(path).read_bytes()


def test_files_may_be_paths_or_bytes(products: Callable[..., pandas.DataFrame], made_up: Any) -> None:
    """Whatever a cell has of a file, its content is what counts: each is encoded once."""
    paths = products(6)["image"].tolist()
    cells = [
        paths[0],
        Path(paths[1]),
        contents(paths[2]),
        bytearray(contents(paths[3])),
        {"bytes": contents(paths[4]), "path": "elsewhere.png"},
        {"bytes": None, "path": paths[5]},
        contents(paths[0]),
    ]
    found = encode_frame(pandas.DataFrame({"image": cells}), made_up, ["image"])
    expected = encode_frame(pandas.DataFrame({"image": [*paths, paths[0]]}), made_up, ["image"])
    assert_array_equal(found.features["image"].pooled, expected.features["image"].pooled)
    assert len(made_up.counted) == 6
    with pytest.warns(MissingModalityWarning, match="1 of 2 .*row 1: .*not a picture"):
        found = encode_frame(pandas.DataFrame({"image": [cells[2], b"no picture", b""]}), made_up, ["image"])
    assert found.rows["image"].tolist() == [0]


@pytest.mark.parametrize(("column", "cell"), [("text", b"words"), ("image", 3), ("image", {"url": "x"})])
def test_cells_that_are_nothing_of_the_kind(made_up: Any, column: Any, cell: object) -> None:
    with pytest.raises(TypeError, match=f"'{column}' must hold a .* got {type(cell).__name__} in row 1"):
        encode_frame(pandas.DataFrame({column: pandas.Series([None, cell], dtype=object)}), made_up, [column])


def test_parquet_files_with_media_in_them(
    products: Callable[..., pandas.DataFrame], made_up: Any, tmp_path: Path
) -> None:
    """As the Hugging Face's `datasets` write them; paths are told from the table's folder."""
    frame = products(3)
    os.link(frame["image"][2], tmp_path / "beside.png")
    media = [{"bytes": contents(path), "path": "x.png"} for path in frame["image"][:2]]
    frame.assign(image=[*media, {"bytes": None, "path": "beside.png"}]).to_parquet(tmp_path / "table.parquet")
    read = read_frame(tmp_path / "table.parquet", columns={})
    assert_array_equal(
        encode_frame(read, made_up, ["image"]).features["image"].pooled,
        encode_frame(frame, made_up, ["image"]).features["image"].pooled,
    )
