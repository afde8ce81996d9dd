"""Overlays: hot where the drop is, grey elsewhere, under names that are safe."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trivium.pipeline.explain.drops import Explanation
from trivium.pipeline.explain.plots import LONGEST_SIDE, heat_of, overlay, write_overlays
from trivium.pipeline.search.retrieval import Hit


def regions(*hot: tuple[int, int, float]) -> np.ndarray:
    cells = np.zeros((7, 7), np.float32)
    for row, column, drop in hot:
        cells[row, column] = drop
    return cells


def hit(path: str) -> Hit:
    return Hit(path=path, modality="image", score=0.5, caption=None, matched="content")


def test_heat_is_where_the_drop_is() -> None:
    heat = heat_of(regions((1, 5, 0.04), (5, 1, 0.01), (5, 5, -0.5)), (70, 140))
    assert heat.shape == (70, 140)
    assert heat.max() == pytest.approx(1, abs=0.02)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert [row // 10, column // 20] == [1, 5]
    assert heat[55, 30] == pytest.approx(0.25, abs=0.02)
    assert not heat[50:60, 105:].any()  # what spoke against the hit is cold
    assert (heat >= 0).all()


def test_nothing_is_hot_where_nothing_held_the_score_up() -> None:
    assert not heat_of(regions(), (7, 7)).any()
    assert not heat_of(regions((0, 0, -1.0)), (7, 7)).any()


def test_the_rest_is_grey_and_the_picture_stays_visible() -> None:
    picture = np.zeros((140, 280, 3), np.uint8)
    picture[:] = (0, 0, 255)
    picture[:, 138:142] = 255
    drawn = np.asarray(overlay(picture, regions((3, 0, 1.0)))).astype(int)
    assert drawn.shape == picture.shape
    hot, cold, line = drawn[70, 20], drawn[70, 260], drawn[70, 140]
    assert hot[0] > hot[1] + 80  # red
    assert np.ptp(cold) < 60  # little of the blue is left
    assert (line > cold + 80).all()


def test_large_pictures_are_drawn_small() -> None:
    assert max(overlay(np.zeros((100, 4000, 3), np.uint8), regions((0, 0, 1.0))).size) == LONGEST_SIDE


def test_files_are_named_by_rank_and_name(tmp_path: Path) -> None:
    picture = np.zeros((14, 14, 3), np.uint8)
    seen = Explanation(regions=regions((0, 0, 1.0)), picture=picture)
    names = ["/m/red dog.jpg", "/m/gone.png", "/m/\udce9'$(x)\n.png", "/m/.png", f"/m/{'x' * 200}.webp"]
    explanations = [seen, Explanation(reason="gone"), seen, seen, seen]
    told = write_overlays(explanations, [hit(name) for name in [*names, "/m/not explained.png"]], tmp_path / "a" / "b")
    written = sorted(path.name for path in (tmp_path / "a" / "b").iterdir())
    assert written == ["01-red_dog.png", "03-_x_.png", "04-_png.png", f"05-{'x' * 60}.png"]
    assert told[0].overlay == str(tmp_path / "a" / "b" / "01-red_dog.png")
    assert told[1].overlay is None
    with Image.open(told[0].overlay) as image:
        assert (image.format, image.size) == ("PNG", (14, 14))


def test_no_folder_for_nothing(tmp_path: Path) -> None:
    (told,) = write_overlays([Explanation()], [hit("/m/a.png")], tmp_path / "out")
    assert told.overlay is None
    assert not (tmp_path / "out").exists()
