"""Naming by prompts: classes, prompts, what counts, what is refused."""

from pathlib import Path

import numpy as np
import pytest

from trivium.pipeline.evaluation.zero_shot import (
    TEMPLATES,
    TemplateError,
    class_vectors,
    name_classes,
    read_templates,
)
from trivium.pipeline.tables.pairs import RefusedRow, TableError

VECTORS = {
    "a photo of a sea lion.": [1, 0],
    "sea lion": [0.6, 0.8],
    "a photo of a cat.": [0, 1],
    "cat": [0, 1],
    "lion1": [1, 0.1],
    "lion2": [0.9, 0.2],
    "lion3": [0, 1],
    "cat1": [0.1, 1],
    "only cat": [0, 1],
    "only sea lion": [0, -1],
}
ROWS = [
    {"image": "/m/lion1.jpg", "label": "sea_lion"},
    {"image": "/m/lion2.jpg", "label": "sea_lion"},
    {"image": "/m/lion3.jpg", "label": "sea_lion"},
    {"image": "/m/cat1.jpg", "label": "cat"},
]


def test_named_by_the_nearest_class(chosen, pair_table) -> None:
    found = name_classes(chosen(VECTORS), pair_table(*ROWS), modality="image")
    assert found.labels == ["cat", "sea_lion"]
    assert found.matrix.tolist() == [[1, 0], [1, 2]]
    assert (found.accuracy, found.items) == (0.75, 4)
    assert found.per_class == {"cat": 1.0, "sea_lion": pytest.approx(2 / 3)}
    assert found.balanced_accuracy == pytest.approx(5 / 6)
    low, high = found.interval
    assert 0 < low < 0.75 < high < 1
    assert found.templates == TEMPLATES["image"]
    assert (found.space.name, found.table, found.refused) == ("chosen", Path("/data/pairs.csv"), [])


def test_a_class_is_the_unit_mean_of_its_prompts(chosen) -> None:
    vectors = class_vectors(chosen(VECTORS), ["sea_lion"], TEMPLATES["image"])
    mean = (np.array([1, 0]) + np.array([0.6, 0.8])) / 2
    np.testing.assert_allclose(vectors, [mean / np.linalg.norm(mean)], rtol=1e-6)


def test_other_prompts(chosen, pair_table) -> None:
    found = name_classes(chosen(VECTORS), pair_table(*ROWS), modality="image", templates=["only {}"])
    assert found.matrix.tolist() == [[1, 0], [3, 0]]
    assert found.templates == ("only {}",)


def test_an_underscore_alone_is_a_word(chosen) -> None:
    assert class_vectors(chosen({"_": [1, 0], "a b": [0, 1]}), ["_", "a_b"], ["{}"]).tolist() == [[1, 0], [0, 1]]


def test_a_file_counts_once_for_each_label(chosen, pair_table) -> None:
    again = [*ROWS, ROWS[0], {"image": "/m/lion1.jpg", "label": "cat"}]
    found = name_classes(chosen(VECTORS), pair_table(*again), modality="image")
    assert found.matrix.tolist() == [[1, 1], [1, 2]]


def test_what_is_refused(chosen, pair_table) -> None:
    rows = [
        {"image": "/m/broken.jpg", "label": "cat"},
        *ROWS,
        {"image": "/m/cat1.jpg"},
        {"text": "cat", "label": "cat"},
        {"text": "cat"},
    ]
    found = name_classes(chosen(VECTORS), pair_table(*rows), modality="image")
    assert found.refused == [
        RefusedRow(line=2, reason="/m/broken.jpg: no image"),
        RefusedRow(line=7, reason="has no label"),
        RefusedRow(line=8, reason="has no image"),
        RefusedRow(line=9, reason="has no image and no label"),
    ]
    assert found.items == 4


def test_only_what_is_named_is_encoded(chosen, pair_table) -> None:
    space = chosen(VECTORS)
    name_classes(space, pair_table(*({**row, "text": "unknown"} for row in ROWS)), modality="image")
    assert "unknown" not in [item for _, item in space.encoded]


def test_texts_are_named_too(chosen, pair_table) -> None:
    space = chosen({"good": [1, 0], "bad": [0, 1], "fine film": [1, 0.2], "dull": [0.1, 1]})
    rows = [{"text": "fine film", "label": "good"}, {"text": "dull", "label": "bad"}]
    assert name_classes(space, pair_table(*rows), modality="text", templates=["{}"]).accuracy == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:2], r"naming needs rows of at least 2 labels with image, 1 found; read from columns image=image, label"),
        ([{"image": "/m/cat1.jpg"}], r"0 found.*1 refused, the first in line 2: has no label"),
    ],
)
def test_too_few_classes(chosen, pair_table, rows, message: str) -> None:
    with pytest.raises(TableError, match=message):
        name_classes(chosen(VECTORS), pair_table(*rows), modality="image")


def test_templates_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeff a {} in the sea \r\n\r\n{}\n{} and {}\n{}\n".encode())
    assert read_templates(file) == ["a {} in the sea", "{}", "{} and {}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a {}\nplain\n", r"prompts\.txt, line 2: a prompt has \{\} where the label goes, got 'plain'"),
        (b"a {label}\n", "line 1: a prompt has"),
        (b" \n", "the text is empty"),
        (b"\x00", "NUL"),
        (None, "the file is gone"),
    ],
)
def test_templates_that_cannot_be_used(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TemplateError, match=message):
        read_templates(file)
