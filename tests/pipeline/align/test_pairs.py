"""Tables to items and pairs: nothing twice, nothing of a held-out picture among what is trained on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trivium.pipeline.align.pairs import LEAST_COSINE, Material, Pairs, Source, Two, gather, pseudo_pairs
from trivium.pipeline.tables.pairs import read_pairs


@pytest.fixture
def folder(tmp_path: Path, picture: Callable[..., Path], sound: Callable[..., Path]) -> Path:
    for number in range(20):
        picture(tmp_path / f"{number}.png", size=(8 + number, 8))
    sound(tmp_path / "a.wav")
    return tmp_path


def gathered(folder: Path, text: str, **options: object) -> Material:
    (folder / "t.csv").write_text(text)
    given = {"modalities": ("text", "image", "audio"), "held_out": 0.0, "seed": 0, **options}
    weight = float(given.pop("weight", 1.0))  # type: ignore[arg-type]
    return gather([Source(table=read_pairs(folder / "t.csv"), weight=weight)], **given)  # type: ignore[arg-type]


def test_items_occur_once_and_rows_may_share_them(folder: Path) -> None:
    found = gathered(folder, "text,image\na,0.png\nb,0.png\na,1.png\na,0.png\n")
    assert list(found.items["text"]) == ["a", "b"]
    assert [Path(path).name for path in found.items["image"]] == ["0.png", "1.png"]
    assert found.pairs["text", "image"].rows.tolist() == [[0, 0], [1, 0], [0, 1]]


def test_three_columns_make_three_kinds_of_pairs(folder: Path) -> None:
    found = gathered(folder, "text,image,audio\na,0.png,a.wav\nb,1.png,\n,2.png,a.wav\n")
    assert {two: len(pairs.rows) for two, pairs in found.pairs.items()} == {
        ("text", "image"): 2,
        ("text", "audio"): 1,
        ("image", "audio"): 2,
    }
    assert set(gathered(folder, "text,image,audio\na,0.png,a.wav\n", modalities=("text", "image")).pairs) == {
        ("text", "image")
    }


def test_labels_become_texts(folder: Path) -> None:
    text = "image,label\n0.png,fire_truck\n1.png,fire_truck\n"
    assert list(gathered(folder, text).items["text"]) == ["fire truck", "a photo of a fire truck."]
    assert list(gathered(folder, text, templates=["see: {}"]).items["text"]) == ["see: fire truck"]
    assert len(gathered(folder, text).pairs["text", "image"].rows) == 4


def test_captions_of_a_picture_are_held_out_together(folder: Path) -> None:
    rows = "".join(f"{number} {caption},{number}.png\n" for number in range(20) for caption in "abc")
    found = gathered(folder, f"text,image\n{rows}", held_out=0.3).pairs["text", "image"]
    out = {int(image) for image in found.rows[found.is_held_out, 1]}
    assert 0 < len(out) < 20
    assert not out & {int(image) for image in found.rows[~found.is_held_out, 1]}
    other = gathered(folder, f"text,image\n{rows}", held_out=0.3, seed=1).pairs["text", "image"]
    assert not np.array_equal(other.is_held_out, found.is_held_out)


def test_the_split_does_not_depend_on_where_the_table_lies(tmp_path: Path, picture: Callable[..., Path]) -> None:
    splits = []
    for name in ("one", "two/deeper"):
        for number in range(20):
            picture(tmp_path / name / f"{number}.png", size=(8 + number, 8))
        rows = "".join(f"{number},{number}.png\n" for number in range(20))
        found = gathered(tmp_path / name, f"text,image\n{rows}", held_out=0.5)
        splits.append(found.pairs["text", "image"].is_held_out)
    assert splits[0].tolist() == splits[1].tolist()


def test_weights_and_failures(folder: Path) -> None:
    found = gathered(folder, "text,image,audio\na,0.png,a.wav\nb,1.png,\n", weight=0.5)
    assert found.pairs["text", "image"].weights.tolist() == [0.5, 0.5]
    left = found.without({"image": [0]})
    assert left.pairs["text", "image"].rows.tolist() == [[1, 1]]
    assert ("image", "audio") not in left.pairs
    assert len(left.pairs["text", "audio"].rows) == 1


EAST, NORTH = np.array([1.0, 0.0]), np.array([0.0, 1.0])
NEARLY_EAST = np.array([0.95, np.sqrt(1 - 0.95**2)])
TEXTS = np.stack([EAST, NEARLY_EAST, NORTH, 3 * NORTH]).astype(np.float32)


def pairs(*rows: tuple[int, int], held_out: int | None = None) -> Pairs:
    array = np.array(rows, np.int64)
    return Pairs(rows=array, weights=np.ones(len(array)), is_held_out=np.arange(len(array)) == held_out)


def test_items_of_like_texts_belong_together() -> None:
    given: dict[Two, Pairs] = {
        ("text", "image"): pairs((0, 10), (0, 11), (2, 12)),
        ("text", "audio"): pairs((1, 20), (3, 21)),
    }
    found = pseudo_pairs(given, TEXTS, share=0.5)
    assert set(found) == {("image", "audio")}
    made = found["image", "audio"]
    assert {tuple(row) for row in made.rows.tolist()} == {(10, 20), (11, 20), (12, 21)}
    assert not made.is_held_out.any()
    assert made.weights.sum() == pytest.approx(0.5 * 2)  # of the two pairs of text and sound
    weight = {tuple(row): float(value) for row, value in zip(made.rows.tolist(), made.weights, strict=True)}
    assert weight[10, 20] == weight[11, 20]
    assert weight[10, 20] / weight[12, 21] == pytest.approx(0.95, abs=1e-4)


def test_only_what_is_alike() -> None:
    assert 0 < LEAST_COSINE < 1
    given: dict[Two, Pairs] = {("text", "image"): pairs((0, 10)), ("text", "audio"): pairs((2, 20))}
    assert pseudo_pairs(given, TEXTS, share=1.0) == {}


def test_pairs_that_tables_have_are_enough() -> None:
    given: dict[Two, Pairs] = {
        ("text", "image"): pairs((0, 10)),
        ("text", "audio"): pairs((0, 20)),
        ("image", "audio"): pairs((10, 20)),
    }
    assert pseudo_pairs(given, TEXTS, share=1.0) == {}


def test_nothing_is_made_of_what_is_held_out() -> None:
    given: dict[Two, Pairs] = {
        ("text", "image"): pairs((0, 10), (2, 12), held_out=0),
        ("text", "audio"): pairs((0, 20), (2, 21)),
    }
    made = pseudo_pairs(given, TEXTS, share=1.0)["image", "audio"]
    assert made.rows.tolist() == [[12, 21]]


def test_the_limit_keeps_the_most_alike() -> None:
    given: dict[Two, Pairs] = {
        ("text", "image"): pairs((0, 10), (2, 12)),
        ("text", "audio"): pairs((1, 20), (3, 21)),
    }
    assert pseudo_pairs(given, TEXTS, share=1.0, limit=1)["image", "audio"].rows.tolist() == [[12, 21]]


def test_two_modalities_have_no_third() -> None:
    assert pseudo_pairs({("text", "image"): pairs((0, 10))}, TEXTS, share=1.0) == {}
