"""Models that somebody else has trained: classifiers and regressors of fused features, classifiers of texts."""

import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from trivium.encoders.base import WeightsError
from trivium.encoders.text.own_models import TextModelConfig, build_network
from trivium.encoders.text.shapes import TransformerShape
from trivium.encoders.text.words import word_tokenizer
from trivium.pipeline.features import frames
from trivium.pipeline.fused.classifier import FusedClassifier, FusedRegressor
from trivium.pipeline.fused.model_folder import ModelError
from trivium.pipeline.space.config import SpaceError
from trivium.pipeline.text_learning.classifying import ClassifierRecipe, load_text_classifier, new_classifier

CASES: Any = sys.modules["__main__"]
MUTATIONS = CASES.load_beside("mutations")
FUSED = CASES.load_beside("../pipeline/conftest")
FUSIONS = ["sum", "late", "gated-units", "late-stack"]
ROWS = 40
WORDS = ["a", "red", "green", "blue", "picture", "of", "the", "sea"]


class HostileModels:
    """Folders that `classify` and the library load."""

    documented = (ModelError, SpaceError, WeightsError)

    def __init__(self, scratch: Path) -> None:
        self._folder, self._templates = scratch / "inside", scratch / "templates"
        self._outside = scratch / "outside"
        self._outside.mkdir()
        self._templates.mkdir()
        os.environ["HOME"] = os.environ["TRIVIUM_CACHE"] = str(scratch / "cache")
        vars(frames)["space_named"] = lambda *_, **__: FUSED.MadeUpSpace()  # whatever a model names
        rng = np.random.default_rng(0)
        things = rng.choice(list(FUSED.WORDS), ROWS)
        self._frame = pandas.DataFrame({"text": [f"a nice {thing} number {n}" for n, thing in enumerate(things)]})
        for fusion in FUSIONS:
            FusedClassifier(fusion=fusion).fit(self._frame, things).save(self._templates / fusion)
        FusedRegressor().fit(self._frame, rng.normal(size=ROWS)).save(self._templates / "regressor")
        self._save_texts(self._templates / "texts")
        self.watched = [self._outside, self._templates]
        os.chdir(self._outside)

    def _save_texts(self, folder: Path) -> None:
        shape = TransformerShape(
            vocabulary=10, width=8, heads=2, layers=1, inner=12, positions=9, embedding=8, dim=8
        )  # fmt: skip
        config = TextModelConfig(shape=shape, max_tokens=8)
        network = build_network(config)
        made = new_classifier(
            network, config=config, tokenizer=word_tokenizer(WORDS), labels=["x", "y"], recipe=ClassifierRecipe()
        )
        made.save(folder)

    def restore(self) -> None:
        """See `cases.Target`."""

    def case(self, rng: random.Random, number: int) -> Any:
        shutil.rmtree(self._folder, ignore_errors=True)
        template = rng.choice(sorted(self._templates.iterdir()))
        shutil.copytree(template, self._folder)
        files = sorted(self._folder.iterdir())
        recipe = [template.name, *(MUTATIONS.change_file(rng.choice(files), rng) for _ in range(rng.choice((1, 1, 2))))]
        loads: dict[str, Callable[[], object]] = {
            "texts": lambda: load_text_classifier(self._folder).predict(["a red picture", "the sea"]),
            "regressor": lambda: FusedRegressor.load(self._folder).predict(self._frame[:3]),
        }
        load = loads.get(template.name, lambda: FusedClassifier.load(self._folder).predict_proba(self._frame[:3]))
        return CASES.Case(recipe, [("load", load)])


TARGETS = {"models": HostileModels}
