"""What heads are given and how they are made: ablations of `trivium align` on Flickr8k, judged on its dev split.

    python benchmarks/alignment_inputs.py [--seeds N] [--only ROW ...]

Trained on the training split (a twentieth of its photos held out, which chooses the epoch). Features are encoded once
and kept in the cache. Needs TRIVIUM_DATA (default ../shared/data).
"""

import argparse
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

from trivium.encoders.base import IMAGE_LAYERS, TEXT_LAYERS, Features, Modality
from trivium.fusion.projections.head import POOLED, HeadInput
from trivium.fusion.projections.training import Recipe
from trivium.pipeline.align.alignment import Method, Plan, align, features_of
from trivium.pipeline.align.pairs import Material, Source, gather
from trivium.pipeline.align.validation import Validation
from trivium.pipeline.space.joint import JointSpace, load_space
from trivium.pipeline.tables.pairs import read_pairs

TABLE = (
    Path(os.environ.get("TRIVIUM_DATA", Path(__file__).parents[2] / "shared" / "data")) / "flickr8k" / "captions.csv"
)
HELD_OUT = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What differs from the default."""

    text: tuple[str, ...] = tuple(TEXT_LAYERS)
    image: tuple[str, ...] = tuple(IMAGE_LAYERS)
    method: Method = "trained"
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def plan(self, seed: int) -> Plan:
        """Return the plan of a seed."""
        inputs: dict[Modality, tuple[HeadInput, ...]] = {
            "text": tuple(map(HeadInput, (POOLED, *self.text))),
            "image": tuple(map(HeadInput, (POOLED, *self.image))),
        }
        return Plan(inputs=inputs, method=self.method, recipe=Recipe(seed=seed, **self.recipe))


ABLATIONS: Mapping[str, Ablation] = {
    "closed form, pooled features only": Ablation(text=(), image=(), method="closed-form"),
    "closed form, and inner layers of texts": Ablation(image=(), method="closed-form"),
    "closed form, and inner layers of pictures": Ablation(text=(), method="closed-form"),
    "closed form, and both": Ablation(method="closed-form"),
    "trained, pooled features only": Ablation(text=(), image=()),
    "trained, and inner layers of texts": Ablation(image=()),
    "trained, and inner layers of pictures": Ablation(text=()),
    "trained, and both: the default": Ablation(),
    "768 numbers": Ablation(recipe={"dim": 768}),
    "two members": Ablation(recipe={"members": 2}),
    "a hidden layer of 512": Ablation(recipe={"hidden": 512}),
    "half of the inputs left out": Ablation(recipe={"input_dropout": 0.5}),
    "nothing left out": Ablation(recipe={"input_dropout": 0.0}),
    "20 epochs": Ablation(recipe={"epochs": 20}),
    "sigmoid loss": Ablation(recipe={"loss": "sigmoid"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=tuple(ABLATIONS), default=tuple(ABLATIONS))
    options = parser.parse_args()
    if not TABLE.is_file():
        raise SystemExit(f"{TABLE} is missing: set TRIVIUM_DATA")
    print(describe(), "\n")
    space = load_space("trivium-labels")
    train, features = encoded(space, "train", held_out=HELD_OUT)
    dev, of_dev = encoded(space, "dev", held_out=1.0)
    judge = Validation({two: pairs.rows for two, pairs in dev.pairs.items()})
    print("| heads | text to image, R@1 / R@5 / R@10 | image to text | s |\n|---|---|---|---|")
    for name in options.only:
        found: dict[str, list[list[float]]] = {"text->image": [], "image->text": []}
        started = time.perf_counter()
        for seed in range(options.seeds):
            aligned = align(space, train, features, ABLATIONS[name].plan(seed))
            recall = judge.recall(judge.picked({m: head(of_dev[m]) for m, head in aligned.heads.items()}))
            for direction, rows in found.items():
                rows.append(list(recall[direction].values()))
        seconds = (time.perf_counter() - started) / options.seeds
        cells = [" / ".join(f"{value:.1%}" for value in np.mean(rows, axis=0)) for rows in found.values()]
        print(f"| {name} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


def encoded(space: JointSpace, split: str, *, held_out: float) -> tuple[Material, dict[Modality, Features]]:
    """Return a split's items and pairs, and the frozen features."""
    source = Source(table=read_pairs(TABLE, where={"split": split}))
    material = gather([source], modalities=("text", "image"), held_out=held_out, seed=0)
    features, failures = features_of(space, material)
    return material.without(failures), features


if __name__ == "__main__":
    main()
