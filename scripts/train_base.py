"""Train `trivium-base`, the space that ships, on what `make base-data` made: free media only.

Each head has two members. The first is the label bridge: what the frozen classifiers see, said in the vectors of their
classes' names and WordNet glosses (pictures), or everyday words (sounds). The second is trained on pairs of the tables.
Their weights were chosen on Flickr8k's development split and UrbanSound, of which nothing is trained on.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import IMAGE_LAYERS, TEXT_LAYERS, Modality, Vectors, unit_rows
from trivium.encoders.batching import encode
from trivium.fusion.projections.head import LARGEST_INPUT, MEMBER_WEIGHTS, POOLED, UNIT, Head, HeadInput
from trivium.fusion.projections.plain import IdentityProjection
from trivium.fusion.projections.training import Recipe
from trivium.pipeline.align.alignment import Plan, align, features_of
from trivium.pipeline.align.card import training_record
from trivium.pipeline.align.pairs import PSEUDO_SHARE, Source, gather
from trivium.pipeline.align.validation import calibrate
from trivium.pipeline.cli.terminal import progress_bars
from trivium.pipeline.space.config import Labels, read_labels
from trivium.pipeline.space.folder import write_space
from trivium.pipeline.space.joint import JointSpace, load_space
from trivium.pipeline.space.projections import ProjectedEncoder
from trivium.pipeline.tables.pairs import read_pairs

ROOT = Path(__file__).parents[1]
TABLES = ("stamps", "clipart", "emoji", "media", "instruments")
TARGET = ROOT / "src" / "trivium" / "spaces" / "trivium-base"
DIM = 384  # MiniLM's
TEMPERATURE: Mapping[Modality, float] = {"image": 2.0, "audio": 4.0}
# Of the trained member, beside 1 of the bridge: photos lose where it counts more (drawings taught it), sounds gain.
TRAINED_WEIGHTS: Mapping[Modality, float] = {"text": 0.5, "image": 0.5, "audio": 2.0}
GLOSS_WEIGHT = 2.0  # of a class's sentence, beside 1 of its names
RECIPE = Recipe(dim=DIM, members=1, hidden=0, epochs=10, learning_rate=1e-3, input_dropout=0.1)
# Of the trained member; a text's first is what the bridge takes too.
INPUTS: Mapping[Modality, tuple[str, ...]] = {
    "text": (UNIT, *TEXT_LAYERS),
    "image": (POOLED, *IMAGE_LAYERS),
    "audio": (POOLED,),
}
Matrix = NDArray[np.float32]
# What it takes, its linear map (width, DIM), and what is taken away from the input first (width,).
Bridge = tuple[Sequence[HeadInput], Matrix, Matrix]
Encode = Callable[[Sequence[str]], Vectors]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "base", help="what `make base-data` made")
    parser.add_argument("--out", type=Path, default=TARGET)
    parser.add_argument("--leave-out", metavar="MODALITY-MODALITY", help="train without pairs of these two")
    parser.add_argument("--pseudo-share", type=float, default=PSEUDO_SHARE, help="see `pseudo_pairs`")
    options = parser.parse_args()
    space = load_space("trivium-labels", announce=print)
    sources = [Source(table=read_pairs(options.data / f"{name}.csv", where={"split": "train"})) for name in TABLES]
    material = gather(sources, modalities=space.modalities, held_out=0.08, seed=0, templates=["{}"])
    if options.leave_out is not None:
        first, second = options.leave_out.split("-")
        kept = {two: pairs for two, pairs in material.pairs.items() if set(two) != {first, second}}
        material = replace(material, pairs=kept)
    plan = Plan(
        inputs={m: tuple(map(HeadInput, names)) for m, names in INPUTS.items()},
        recipe=RECIPE,
        pseudo_share=options.pseudo_share,
    )
    with progress_bars() as show:
        features, failures = features_of(space, material, progress=show)
        material = material.without(failures)
        trained = align(space, material, features, plan, progress=lambda done, total, _: show("align", done, total))
    heads = joined(trained.heads, bridges(space, options.data), TRAINED_WEIGHTS)
    held_out = {two: pairs.rows[pairs.is_held_out] for two, pairs in material.pairs.items()}
    vectors = {modality: head(features[modality]) for modality, head in heads.items()}
    record = training_record(trained, plan, sources, {m: space.config_of(m).backbone for m in heads})
    record["trained_weights"] = dict(TRAINED_WEIGHTS)
    write_space(
        options.out,
        name="trivium-base",
        description="MiniLM, EfficientNet-Lite0 and aiSFX by label bridges and heads trained on free media",
        dim=2 * DIM,
        encoders={modality: space.config_of(modality) for modality in heads},
        heads=heads,
        relevance=calibrate(vectors, held_out, seed=0),
        half=True,
        more={"training.json": json.dumps(record, indent=1) + "\n"},
    )
    print(json.dumps(record["recall"], indent=1))
    print(f"wrote {options.out}: {sum(file.stat().st_size for file in options.out.iterdir()) / 1e6:.1f} MB")
    return 0


def bridges(space: JointSpace, data: Path) -> dict[Modality, Bridge]:
    """Return the bridge of each modality."""
    encoder = ProjectedEncoder(space.space, space.backbone("text"), IdentityProjection())

    def text(items: Sequence[str]) -> Vectors:
        return encode(encoder, items, batch_size=512)

    pictures = read_labels(_labels(space, "image"))
    sounds = read_labels(_labels(space, "audio"))
    with (data / "imagenet_texts.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sentences = text([sentence(row) for row in rows])
    of_class = dict(zip((row["synset"] for row in rows), sentences, strict=True))
    names = label_vectors(pictures, text)
    classes = {name: _unit(names[name] + GLOSS_WEIGHT * of_class[name]) for name in pictures.heads["imagenet"]}
    words = json.loads((ROOT / "scripts" / "base" / "ucs_words.json").read_text(encoding="utf-8"))
    plain = label_vectors(sounds, text)
    more = label_vectors(
        Labels(phrases={name: words.get(name) or sounds.phrases[name] for name in plain}, heads={}), text
    )
    categories = {name: _unit(plain[name] + more[name]) for name in plain}
    picture_mean = np.mean(list(classes.values()), axis=0)
    sound_mean = np.mean(list(categories.values()), axis=0)
    picture_map: Matrix = np.stack([classes[name] - picture_mean for name in pictures.heads["imagenet"]])
    sound_maps = [
        np.stack([categories[name] - sound_mean for name in of]) / len(sounds.heads) for of in sounds.heads.values()
    ]
    return {
        "text": ((HeadInput(UNIT),), np.eye(DIM, dtype=np.float32), picture_mean),
        "image": ((HeadInput("imagenet", TEMPERATURE["image"]),), picture_map, np.zeros(len(picture_map), np.float32)),
        "audio": (
            tuple(HeadInput(head, TEMPERATURE["audio"]) for head in sounds.heads),
            np.concatenate(sound_maps),
            np.zeros(sum(map(len, sound_maps)), np.float32),
        ),
    }


def sentence(row: Mapping[str, str]) -> str:
    """Say what a class is: its names, what WordNet says of it, and what it is a kind of."""
    kind = row["hypernyms"].split("; ")[0]
    return f"{row['lemmas'].replace('; ', ', ')}: {row['gloss']}; {kind}"


def label_vectors(labels: Labels, text: Encode) -> dict[str, Vectors]:
    """Return the mean of each class's words' vectors, length 1."""
    words = [word for phrases in labels.phrases.values() for word in phrases]
    vectors = iter(text(words))
    return {name: _unit(np.mean([next(vectors) for _ in phrases], axis=0)) for name, phrases in labels.phrases.items()}


def joined(
    trained: Mapping[Modality, Head],
    of_bridges: Mapping[Modality, Bridge],
    trained_weights: Mapping[Modality, float],
) -> dict[Modality, Head]:
    """Put each bridge and each trained head side by side, as two members of one head.

    The cosine of two vectors is that of their bridges and that of their trained members, weighted by the geometric
    means of the two modalities' weights.
    """
    heads: dict[Modality, Head] = {}
    for modality, head in trained.items():
        inputs, bridge, origin = of_bridges[modality]
        own = head.tensors
        shares_input = tuple(inputs) == tuple(head.inputs[: len(inputs)])  # texts: both see the same numbers
        # Probabilities are at most 1: this scale keeps them from being cut.
        scale = np.full(len(bridge), 1 / LARGEST_INPUT, np.float32)
        if shares_input:
            width, shared = head.width, len(bridge)
            mean, scale = own["mean"], own["scale"]
            first = np.zeros((width, DIM), np.float32)
            first[:shared] = bridge * scale[:shared, np.newaxis]
            first_bias = (mean[:shared] - origin) @ bridge  # x * scale + mean is the input itself
            second = own["linear.weight"][0]
        else:
            width = len(own["mean"]) + len(bridge)
            mean, scale = np.concatenate([own["mean"], origin]), np.concatenate([own["scale"], scale])
            first = np.zeros((width, DIM), np.float32)
            first[len(own["mean"]) :] = bridge / LARGEST_INPUT
            first_bias = np.zeros(DIM)
            second = np.zeros((width, DIM), np.float32)
            second[: len(own["mean"])] = own["linear.weight"][0]
        weights = np.array([1.0, trained_weights[modality]], np.float32)
        share = np.sqrt(weights[1] / weights.sum())
        tensors = {
            "mean": mean,
            "scale": scale,
            "linear.weight": np.stack([first, second]),
            "linear.bias": np.stack([first_bias, own["linear.bias"][0]]),
            MEMBER_WEIGHTS: weights,
            "centre": np.concatenate([np.zeros(DIM), share * own["centre"]]),
        }
        heads[modality] = Head(
            tuple(head.inputs) if shares_input else (*head.inputs, *inputs),
            {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()},
        )
    return heads


def _labels(space: JointSpace, modality: Modality) -> Path:
    file = space.config_of(modality).projection.file
    assert file is not None
    return file


def _unit(vector: NDArray[np.floating]) -> Vectors:
    found: Vectors = unit_rows(np.asarray(vector)[np.newaxis])[0]
    return found


if __name__ == "__main__":
    sys.exit(main())
