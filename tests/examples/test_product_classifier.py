"""The example of a product classifier runs, on a small table that is made here."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "product_classifier.py"


@pytest.mark.usefixtures("weights", "cache")
def test_both_know_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    rows = []
    for place in range(60):
        thing, colour = random.choice(["shirt", "watch"]), random.choice(["red", "blue"])
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{place}.png")
        rows.append({"title": f"{thing} number {place}", "path": f"{place}.png", "label": f"{colour} {thing}"})
    pandas.DataFrame(rows).to_csv(tmp_path / "products.csv", index=False)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(tmp_path / "products.csv"), "--label", "label"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    text, image, both = (float(line.rsplit(" ", 1)[1]) for line in lines[:3])
    assert both > max(text, image)
    assert [line.split()[0] for line in lines[-2:]] == ["image", "text"]
