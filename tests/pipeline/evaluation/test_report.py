"""What is told: JSON for programs, Markdown and pictures for people."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trivium.pipeline.evaluation import plots, report
from trivium.pipeline.evaluation.calibration import reliability
from trivium.pipeline.evaluation.recall import Evaluation, evaluate
from trivium.pipeline.evaluation.zero_shot import ZeroShot, name_classes
from trivium.pipeline.tables.pairs import RefusedRow


@pytest.fixture
def evaluation(chosen, pair_table) -> Evaluation:
    rows = [
        {"image": f"/m/{name}.jpg", "text": text, "score": 1} for name, text in (("a", "x"), ("a", "y"), ("b", "z"))
    ]
    space = chosen({"a": [1, 0], "b": [0, 1], "x": [1, 0], "y": [0, 1], "z": [0, 1]})
    return evaluate(
        space, pair_table(*rows), calibration=lambda query, gallery, scores, searched: np.clip(scores, 0, 1)
    )


@pytest.fixture
def naming(chosen, pair_table) -> ZeroShot:
    space = chosen({"a": [1, 0], "b": [0, 1], "$x_|y$": [1, 0], "$x |y$": [1, 0], "犬": [0, 1]})
    rows = [{"image": "/m/a.jpg", "label": "$x_|y$"}, {"image": "/m/b.jpg", "label": "犬"}]
    rows.append({"image": "/m/a.jpg", "label": "犬"})
    return name_classes(space, pair_table(*rows), modality="image", templates=["{}"])


def test_json_of_an_evaluation(evaluation: Evaluation) -> None:
    told = json.loads(json.dumps(report.evaluation_json(evaluation), allow_nan=False))
    assert list(told)[:4] == ["gallery", "recall", "ndcg", "calibration"]
    assert told["gallery"] == {"text": 3, "image": 2}
    forth = told["recall"]["text->image"]
    assert forth["R@1"] == pytest.approx(2 / 3)
    assert (forth["R@5"], forth["R@10"], forth["median_rank"], forth["queries"], forth["gallery"]) == (1, 1, 1, 3, 2)
    assert forth["MRR"] == pytest.approx(2.5 / 3)
    assert set(forth["interval"]) == {"R@1", "R@5", "R@10", "MRR"}
    assert len(forth["interval"]["R@1"]) == 2
    assert told["ndcg"]["text->image"]["nDCG@10"] == pytest.approx((2 + 1 / np.log2(3)) / 3)
    assert told["calibration"]["text->image"]["hits"]["count"] == 6
    assert told["space"] == {"name": "chosen", "dim": 2, "revision": "r1"}
    assert (told["table"], told["refused"], told["refused_rows"], told["rows"], told["seed"]) == (
        "/data/pairs.csv",
        0,
        [],
        3,
        0,
    )
    assert "seed 0" in told["protocol"]


def test_json_of_a_naming(naming: ZeroShot) -> None:
    told = json.loads(json.dumps(report.zero_shot_json(naming), allow_nan=False))
    assert told["accuracy"] == pytest.approx(2 / 3)
    assert told["per_class"] == {"$x_|y$": 1.0, "犬": 0.5}
    assert told["confusion"] == {"labels": ["$x_|y$", "犬"], "matrix": [[1, 0], [1, 1]]}
    assert told["interval"][0] < told["accuracy"] < told["interval"][1]
    assert (told["prompts"], told["modality"], told["items"], told["classes"], told["chance"]) == (
        ["{}"],
        "image",
        3,
        2,
        0.5,
    )


def test_terminal(evaluation: Evaluation, naming: ZeroShot) -> None:
    lines = report.evaluation_text(evaluation).splitlines()
    (row,) = [line for line in lines if line.startswith("text->image") and "nDCG" not in line and "%" in line]
    assert row.split()[:2] == ["text->image", "66.7%"]
    assert row.split()[-3:] == ["1", "3", "2"]
    assert any("revision r1" in line for line in lines)
    shown = report.zero_shot_text(naming)
    assert "accuracy 66.7% (" in shown
    assert "chance 50.0%" in shown
    assert "$x_|y$ (1)" in shown  # what 犬 was mistaken for


def test_refused_rows_are_told(evaluation: Evaluation) -> None:
    many = [RefusedRow(line=n, reason=f"/m/{n}\n.jpg: broken") for n in range(2, 40)]
    found = replace(evaluation, refused=many)
    shown = report.evaluation_text(found)
    assert "refused     38 rows" in shown
    assert "line 2: /m/2\\n.jpg: broken" in shown
    assert "and 18 more (--json lists all)" in shown
    assert "- refused: 38 rows" in report.evaluation_markdown(found)
    assert len(report.evaluation_json(found)["refused_rows"]) == 38
    assert "refused     1 row\n" in report.evaluation_text(replace(evaluation, refused=many[:1]))


def test_markdown(evaluation: Evaluation, naming: ZeroShot) -> None:
    page = report.evaluation_markdown(evaluation, picture="recall.png")
    assert "![recall](recall.png)" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| text->image | 66.7%")]
    assert row.endswith("| 1 | 3 | 2 |")
    assert "![" not in report.evaluation_markdown(evaluation)
    page = report.zero_shot_markdown(naming, picture="confusion.png")
    assert r"| \$x\_\|y\$ | 100.0% | 1 |" in page  # the label makes no column of its own
    assert "**accuracy 66.7%" in page


def test_files_with_names_that_are_no_text(tmp_path: Path, evaluation: Evaluation) -> None:
    found = replace(evaluation, refused=[RefusedRow(line=2, reason="/m/\udcff.jpg: broken")])
    told = report.evaluation_json(found)
    report.write_report(tmp_path / "new" / "folder", "evaluation", told, report.evaluation_markdown(found))
    written = (tmp_path / "new" / "folder" / "evaluation.json").read_text()
    assert json.loads(written) == told
    assert "\\udcff.jpg" in (tmp_path / "new" / "folder" / "evaluation.md").read_text()


def test_pictures(tmp_path: Path, evaluation: Evaluation, naming: ZeroShot) -> None:
    """Drawn whole, alike each time, and not blank; labels are no formulas, and may be in any script."""
    plots.draw_recall(evaluation, tmp_path / "recall.png")
    plots.draw_confusion(naming, tmp_path / "confusion.png")
    curve = reliability(np.array([0.1, 0.9]), np.array([False, True]))
    plots.draw_reliability({"hits": curve, "pairs": curve}, tmp_path / "reliability.png", title="a $ b")
    for name in ("recall", "confusion", "reliability"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20
    plots.draw_recall(evaluation, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "recall.png").read_bytes()


def test_recall_is_darker_where_it_is_higher(tmp_path: Path, evaluation: Evaluation, monkeypatch) -> None:
    shown = []

    def shares(axes, data, **options):
        shown.append(data)
        return show(axes, data, **options)

    from matplotlib.axes import Axes

    show = Axes.imshow
    monkeypatch.setattr(Axes, "imshow", shares)
    plots.draw_recall(evaluation, tmp_path / "recall.png")
    assert len(shown) == 3
    np.testing.assert_allclose(shown[0], [[0.25, 2 / 3], [0.75, np.nan]])  # R@1: rows are what is asked with


@pytest.mark.parametrize("classes", [30, 70])
def test_many_classes(tmp_path: Path, naming: ZeroShot, classes: int) -> None:
    labels = [f"a class with a very long name, number {n}" for n in range(classes)]
    found = replace(naming, labels=labels, matrix=np.eye(classes, dtype=np.int64) * 3)
    plots.draw_confusion(found, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert max(picture.size) < 2_500


def test_reporting_needs_no_matplotlib() -> None:
    code = (
        "import sys, trivium.pipeline.cli.evaluating\n"
        "from trivium.pipeline.evaluation import plots\nplots.can_draw()\n"
        "print(sorted({'matplotlib', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
