"""A tiny tokenizer as BERT's, a tiny Transformer over it, and texts whose label their words tell."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from trivium.encoders.text.own_models import TextModelConfig, build_network, save_text_model
from trivium.encoders.text.shapes import TransformerShape
from trivium.pipeline.text_learning.classifying import LabelledTexts
from trivium.pipeline.text_learning.starting import Start

GOOD, BAD = ["good", "fine", "lovely", "great"], ["bad", "dull", "awful", "poor"]
PLAIN = ["the", "film", "was", "a", "plot", "with", "music", "and", "story"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_texts(count: int, *, seed: int = 0) -> LabelledTexts:
    random = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(count):
        label = int(random.integers(2))
        words = list(random.choice(PLAIN, random.integers(4, 9))) + list(random.choice((BAD, GOOD)[label], 2))
        texts.append(" ".join(random.permutation(words)))
        labels.append(("no", "yes")[label])
    return LabelledTexts(texts, labels)


def make_tokenizer() -> str:
    words = [*SPECIAL, *PLAIN, *GOOD, *BAD]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()  # type: ignore[assignment, unused-ignore]
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment, unused-ignore]
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment, unused-ignore]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer.to_str()


def make_start(*, dim: int | None = None, seed: int = 0) -> Start:
    shape = TransformerShape(
        vocabulary=len([*SPECIAL, *PLAIN, *GOOD, *BAD]),
        width=16,
        heads=2,
        layers=1,
        inner=32,
        positions=16,
        embedding=16,
        dim=dim or 16,
        projected=dim is not None,
    )
    config = TextModelConfig(shape=shape, max_tokens=16)
    torch.manual_seed(seed)
    return Start(build_network(config), config, make_tokenizer())


@pytest.fixture
def start() -> Start:
    return make_start()


@pytest.fixture
def new_start() -> Callable[..., Start]:
    return make_start


@pytest.fixture
def labelled() -> Callable[..., LabelledTexts]:
    return make_texts


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    made = make_start()
    save_text_model(tmp_path / "model", made.config, made.network.state_dict(), made.tokenizer)
    return tmp_path / "model"


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, count: int, *, seed: int = 0) -> Path:
        given = make_texts(count, seed=seed)
        lines = [f"{text},{label}" for text, label in zip(given.texts, given.labels, strict=True)]
        (tmp_path / name).write_text("\n".join(["text,label", *lines]) + "\n")
        return tmp_path / name

    return write
