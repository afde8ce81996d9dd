"""Fused models that a stranger made: loaded and asked, or refused by a `ModelError`; see `test_hostile_folders`."""

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas
import pytest

from trivium.pipeline.fused.classifier import FusedClassifier, FusedRegressor
from trivium.pipeline.fused.model_folder import CONFIG, ModelError
from trivium.pipeline.fused.transfer import TransferClassifier
from trivium.pipeline.space.config import SpaceError

pytestmark = pytest.mark.usefixtures("made_up")
SEED = int(os.environ.get("TRIVIUM_SEED", "0"))
HOSTILE = int(os.environ.get("TRIVIUM_HOSTILE", "10000"))
SHORT = 40
Products = Callable[..., pandas.DataFrame]
KINDS: dict[str, Callable[[], Any]] = {
    "kernels": FusedClassifier,
    "network": lambda: FusedClassifier(fusion="gated-units"),
    "late": lambda: FusedClassifier(fusion="late-stack"),
    "numbers": FusedRegressor,
    "transfer": TransferClassifier,
}


def fitted(kind: str, train: pandas.DataFrame) -> Any:
    truth = np.arange(len(train)) / 7 if kind == "numbers" else train["label"]
    return KINDS[kind]().fit(train[["text", "image"]], truth)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [SHORT, pytest.param(HOSTILE, marks=pytest.mark.slow)])
def test_whatever_a_stranger_made_is_used_or_refused(
    products: Products, tmp_path: Path, reference: Callable[[str], ModuleType], kind: str, count: int
) -> None:
    hostile, valid, folder = reference("hostile"), tmp_path / "valid", tmp_path / "hostile"
    train, asked = products(40), products(4, seed=1)
    model = fitted(kind, train)
    model.save(valid)
    expected = type(model).load(valid).predict(asked)
    (tmp_path / "outside").mkdir()
    secret = tmp_path / "outside" / "secret.json"
    secret.write_text("{}")
    refused = 0
    for seed in range(SEED, SEED + count):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(valid, folder / "folder")
        done = hostile.change(folder / "folder", secret, seed)
        message = "used without a word"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert len(type(model).load(folder / "folder").predict(asked)) == len(expected)
        except (ModelError, SpaceError) as error:
            refused, message = refused + 1, str(error)
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {done}: {type(error).__name__}: {error}") from error
        assert 10 < len(message) < 5_000, (seed, done)
        assert secret.read_text() == "{}"
        assert sorted(os.listdir(tmp_path)) == ["cache", "hostile", "outside", "valid"]
    assert refused > count / 10


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"parameters": {"cache": "/home/you"}}, "a classifier has no parameter 'cache'"),
    ({"parameters": {"device": "cuda"}}, "a classifier has no parameter 'device'"),
    ({"parameters": {"space": 3}}, "the parameter space cannot be 3"),
    ({"parameters": {"most_rows": True}}, "the parameter most_rows cannot be True"),
    ({"parameters": {"metric": []}}, "the parameter metric cannot be list"),
    ({"views": {"text": [0]}}, "views must have widths"),
    ({"views": {"smell": [3]}}, "views must be of modalities"),
    ({"classes": ["red shirt"] * 4}, "a class is there twice"),
    ({"classes": ["a", 1]}, "classes must all be words or all numbers"),
    ({"classes": ["a"]}, "classes must be a list of at least two"),
    ({"columns": ["../x"]}, "columns must be modalities"),
    ({"label": 3}, "label must be a column's name, got 3"),
    ({"encoders": {"text": None}}, "encoders must name a revision for each modality"),
    ({"deviation": 0}, "deviation must be above 0, got 0"),
    ({"model": {"kind": "kernels"}}, "its modalities are not those of the model"),
    ({"model": {"kind": "magic", "modalities": ["text"], "is_classes": True}}, "its kind is not known"),
    ({"model": []}, "it has no kind"),
]


def test_fields_are_checked_one_by_one(products: Products, tmp_path: Path) -> None:
    fitted("kernels", products(40)).save(tmp_path / "m")
    config = json.loads((tmp_path / "m" / CONFIG).read_text())
    for change, message in CHANGES:
        (tmp_path / "m" / CONFIG).write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=f"is damaged: .*{message}"):
            FusedClassifier.load(tmp_path / "m")


def test_a_space_of_ones_own_is_kept_by_its_whole_path(
    products: Products, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is relative means another folder elsewhere: a loaded model names none."""
    monkeypatch.chdir(tmp_path)
    FusedClassifier(space="my-space").fit(products(40), products(40)["label"]).save("m")
    assert FusedClassifier.load("m").space == str(tmp_path / "my-space")
