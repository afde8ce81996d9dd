from pathlib import Path

import pytest

from base.table import MAX_ALIKE, Contents, Row, label_of, read_table, split_of, without_crowds, write_table


def row(**told: str) -> Row:
    return Row(**{"label": "x", "source": "s", **told})


def test_a_table_is_read_as_it_was_written(tmp_path: Path):
    rows = [row(text='An "owl", hooting', audio="media/ö.ogg", split="test"), row(image="a.png")]
    write_table(tmp_path / "t.csv", rows)
    assert read_table(tmp_path / "t.csv") == rows


def test_one_in_five_is_held_out_always_the_same():
    splits = [split_of(f"animals/{number}") for number in range(2000)]
    assert 0.17 < splits.count("test") / 2000 < 0.23
    assert [split_of(name) for name in ("animals/birds/owl", "plants/flowers/flower8")] == ["train", "train"]
    assert split_of("symbols/alphabets/asl/asl_y") == "test"


@pytest.mark.parametrize(
    ("caption", "label"), [("A dog.", "dog"), ("the  Sun", "sun"), ("An owl!", "owl"), ("ant", "ant")]
)
def test_label(caption: str, label: str):
    assert label_of(caption) == label


def test_the_same_bytes_are_used_once(tmp_path: Path):
    for name, content in {"a.png": b"1", "b.png": b"1", "c.png": b"2", "a.ogg": b"3", "b.ogg": b"3"}.items():
        (tmp_path / name).write_bytes(content)
    contents = Contents(tmp_path)
    first = [row(text="one", image="a.png"), row(text="two", image="a.png"), row(text="two", image="a.png")]
    assert list(contents.without_repeats(first)) == first[:2]
    later = [row(text="three", image="b.png"), row(text="four", image="b.png", audio="a.ogg")]
    assert list(contents.without_repeats(later)) == [row(text="four", audio="a.ogg")]
    assert list(contents.without_repeats([row(image="c.png", audio="b.ogg")])) == [row(image="c.png")]


def test_a_crowd_of_sounds_is_thinned_but_not_pictures():
    crowd = [row(text="a click", audio=f"{number}.ogg") for number in range(3 * MAX_ALIKE)]
    pictures = [row(text="a click", image=f"{number}.png") for number in range(3 * MAX_ALIKE)]
    few = [row(text="a clock", audio="clock.ogg")]
    kept = without_crowds([*crowd, *pictures, *few])
    assert [r for r in kept if r.image] == pictures
    assert len([r for r in kept if r.text == "a click" and r.audio]) == MAX_ALIKE
    assert kept[-1:] == few
    assert set(without_crowds([*reversed(crowd)])) == set(kept) & set(crowd)
