"""The heads that ship: a bridge and a trained head side by side are what they are apart."""

import numpy as np
import pytest

from train_base import DIM, joined, sentence
from trivium.encoders.base import Features, Modality, unit_rows
from trivium.fusion.projections.head import POOLED, UNIT, Head, HeadInput
from trivium.fusion.projections.plain import softmax

RANDOM = np.random.default_rng(0)
WEIGHTS: dict[Modality, float] = {"text": 0.4, "image": 2.0}


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def trained(*names: str, width: int) -> Head:
    tensors = {
        "mean": normal(width),
        "scale": np.abs(normal(width)) + 1,
        "linear.weight": normal(1, width, DIM),
        "linear.bias": normal(1, DIM),
        "centre": 0.1 * normal(DIM),
    }
    return Head(tuple(map(HeadInput, names)), tensors)


def test_a_joined_head_is_both() -> None:
    n = 5
    text = Features(pooled=normal(n, DIM), layers={"inner": normal(n, 7)})
    image = Features(pooled=normal(n, 20), layers={"inner": normal(n, 6)}, logits={"imagenet": 3 * normal(n, 9)})
    heads: dict[Modality, Head] = {
        "text": trained(UNIT, "inner", width=DIM + 7),
        "image": trained(POOLED, "inner", width=26),
    }
    origin, classes = np.asarray(normal(DIM) / DIM, np.float32), normal(9, DIM)
    found = joined(
        heads,
        {
            "text": ((HeadInput(UNIT),), np.eye(DIM, dtype=np.float32), origin),
            "image": ((HeadInput("imagenet", 2.0),), classes, np.zeros(9, np.float32)),
        },
        WEIGHTS,
    )
    bridged: dict[Modality, np.ndarray] = {
        "text": unit_rows(unit_rows(text.pooled) - origin),
        "image": unit_rows(softmax(image.logits["imagenet"] / np.float32(2.0)) @ classes),
    }
    given: dict[Modality, Features] = {"text": text, "image": image}
    for modality, features in given.items():
        head = heads[modality]
        share = np.sqrt(np.array([1, WEIGHTS[modality]]) / (1 + WEIGHTS[modality]))
        own = np.concatenate([features.pooled, features.layers["inner"]], axis=1)
        if modality == "text":
            own[:, :DIM] = unit_rows(text.pooled)
        expected = unit_rows(
            np.concatenate(
                [share[0] * bridged[modality], share[1] * (head.plain(own) - head.tensors["centre"])], axis=1
            )
        )
        np.testing.assert_allclose(found[modality](features), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("hypernyms", "said"),
    [("hound; dog", "beagle, small hound: a short dog; hound"), ("", "beagle, small hound: a short dog; ")],
)
def test_a_class_in_a_sentence(hypernyms: str, said: str) -> None:
    assert sentence({"lemmas": "beagle; small hound", "gloss": "a short dog", "hypernyms": hypernyms}) == said
