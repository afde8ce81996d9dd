"""What the space that ships can do, on data that it was not trained on, and what it says to nonsense.

    python benchmarks/base_space.py [SPACE] [--data FOLDER] [--only PART ...]

Needs TRIVIUM_DATA (default ../shared/data) and what `make base-data` made, for the held-out stamps.
"""

import argparse
import csv
import gzip
import json
import os
import random
import string
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trivium.encoders.base import Features, Modality, Vectors
from trivium.encoders.batching import encode
from trivium.pipeline.features.cache import FeatureCache
from trivium.pipeline.features.frozen import frozen_features
from trivium.pipeline.space.joint import DEFAULT_SPACE, JointSpace, load_space
from trivium.pipeline.tables.pairs import Row, read_pairs

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("TRIVIUM_DATA", ROOT.parent / "shared" / "data"))
TRIVIUM = [sys.executable, "-P", "-m", "trivium"]
BASELINE = "trivium-labels"
THRESHOLDS = (0.02, 0.05, 0.1, 0.2)
QUERIES = 300  # of each kind of nonsense


def main() -> None:
    parts = {
        "photos": photos,
        "sounds": sounds,
        "stamps": stamps,
        "picture-sound": pictures_to_sounds,
        "nonsense": nonsense,
        "new-sounds": new_sounds,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", nargs="?", default=DEFAULT_SPACE)
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "base", help="what `make base-data` made")
    parser.add_argument("--only", nargs="+", choices=tuple(parts), default=tuple(parts))
    parser.add_argument(
        "--all-stamps",
        action="store_true",
        help="picture-sound: not the held-out ones only; for a space trained without such pairs (--leave-out)",
    )
    options = parser.parse_args()
    print(describe(), "\n")
    for name in options.only:
        parts[name](options)
        print(flush=True)


def photos(options: argparse.Namespace) -> None:
    """Photos and captions."""
    table = str(DATA / "flickr8k" / "captions.csv")
    print("| Flickr8k, dev | R@1 / R@5 / R@10 | gallery |\n|---|---|---|")
    for space in (BASELINE, options.space):
        found = told("evaluate", space, table, "--where", "split=dev")
        for direction in ("text->image", "image->text"):
            print(f"| {space}, {direction} | {recalls(found['recall'][direction])} | {found['gallery']} |", flush=True)


def sounds(options: argparse.Namespace) -> None:
    """City sounds by their class's name."""
    table = str(DATA / "urbansound" / "clips.csv")
    for space in (BASELINE, options.space):
        found = told("zero-shot", space, table, "--modality", "audio", "--label", "label")
        low, high = found["interval"]
        print(f"UrbanSound, {space}: {found['accuracy']:.1%} ({low:.1%} to {high:.1%})", flush=True)


def stamps(options: argparse.Namespace) -> None:
    """Stamps that were held out."""
    table = str(options.data / "stamps.csv")
    print("| stamps, held out | R@1 / R@5 / R@10 | queries |\n|---|---|---|")
    for space in (BASELINE, options.space):
        found = told("evaluate", space, table, "--where", "split=test")["recall"]
        for direction in ("text->image", "text->audio", "image->audio"):
            print(f"| {space}, {direction} | {recalls(found[direction])} | {found[direction]['queries']} |", flush=True)


def pictures_to_sounds(options: argparse.Namespace) -> None:
    """Held-out stamps' pictures to their sounds, among all sounds of the tables."""
    rows = [row for file in sorted(options.data.glob("*.csv")) for row in read_rows(file)]
    gallery = sorted({row.audio for row in rows if row.audio})
    where = {} if options.all_stamps else {"split": "test"}
    of_stamps = read_rows(options.data / "stamps.csv", **where)
    pairs = sorted({(row.image, row.audio) for row in of_stamps if row.image and row.audio})
    print(
        "| stamps: picture to its sound | R@1 / R@5 / R@10 | pairs | sounds | chance at R@10 |\n|---|---|---|---|---|"
    )
    for name in (BASELINE, options.space):
        space = load_space(name)
        (pictures, _), (of_sounds, places) = (
            vectors(space, "image", [image for image, _ in pairs]),
            vectors(space, "audio", gallery),
        )
        row_of = {gallery[place]: row for row, place in enumerate(places)}
        scores = pictures @ of_sounds.T
        own = scores[np.arange(len(pairs)), [row_of[audio] for _, audio in pairs]]
        ranks = (scores > own[:, np.newaxis]).sum(axis=1)
        cells = " / ".join(f"{(ranks < k).mean():.1%}" for k in (1, 5, 10))
        print(f"| {name} | {cells} | {len(pairs)} | {len(row_of)} | {10 / len(row_of):.2%} |", flush=True)


def nonsense(options: argparse.Namespace) -> None:
    """Nonsense, and what an answer of nothing costs real captions."""
    space = load_space(options.space)
    rows = read_rows(DATA / "flickr8k" / "captions.csv", split="dev")
    files = sorted({row.image for row in rows if row.image})
    pictures, _ = vectors(space, "image", files)
    chance = random.Random(0)
    with gzip.open(DATA / "text" / "imdb_test.csv.gz", "rt", encoding="utf-8", newline="") as file:
        first = [row["text"].split(".")[0][:150] for row in csv.DictReader(file)]
    with (options.data / "wordnet_texts.csv").open(encoding="utf-8", newline="") as glosses:
        words = [word for row in csv.DictReader(glosses) for word in row["gloss"].split()]
    queries = {
        "letters": [" ".join(letters(chance) for _ in range(chance.randint(1, 5))) for _ in range(QUERIES)],
        "words": [" ".join(chance.choices(words, k=chance.randint(3, 8))) for _ in range(QUERIES)],
        "reviews": [sentence for sentence in first if sentence.strip()][:QUERIES],
        "captions": [row.text for row in rows if row.text],
    }
    best = {}
    for kind, texts in queries.items():
        scores = encode(space.encoder("text"), texts, batch_size=256) @ pictures.T
        assert space.relevance is not None
        said = space.relevance.probabilities("text", "image", scores.max(axis=1), len(pictures))
        assert said is not None
        best[kind] = said
        if kind == "captions":
            own = np.array([files.index(row.image) for row in rows if row.text and row.image])
            is_right = scores.argmax(axis=1) == own
    print(
        f"| `--min-relevance` | {' | '.join(f'nothing: {kind}' for kind in list(queries)[:-1])} | captions answered |"
    )
    print("|---|---|---|---|---|")
    for threshold in THRESHOLDS:
        shares = [f"{(best[kind] < threshold).mean():.0%}" for kind in list(queries)[:-1]]
        answered = best["captions"] >= threshold
        right = f"{is_right[answered].mean():.0%}" if answered.any() else "-"
        print(f"| {threshold} | {' | '.join(shares)} | {answered.mean():.0%}, of those right first {right} |")


def new_sounds(options: argparse.Namespace) -> None:
    """Sounds added from 24 a class: fold 1 of UrbanSound to fold 2, texts kept; beside a linear probe."""
    table = str(DATA / "urbansound" / "clips.csv")
    for method in ("closed-form", "trained"):
        with tempfile.TemporaryDirectory() as scratch:
            target = str(Path(scratch) / "space")
            aligning = ["--encoders", options.space, "--keep", "text", "--column", "label=label", "--validation", "0"]
            told("align", table, *aligning, "--where", "fold=1", "--method", method, "--out", target)
            found = told("zero-shot", target, table, "--modality", "audio", "--label", "label", "--where", "fold=2")
        low, high = found["interval"]
        print(f"UrbanSound fold 1 to fold 2, {method}: {found['accuracy']:.1%} ({low:.1%} to {high:.1%})", flush=True)
    rows = {fold: read_rows(DATA / "urbansound" / "clips.csv", fold=fold) for fold in ("1", "2")}
    space = load_space(options.space)
    x, y = {}, {}
    for fold, of_fold in rows.items():
        x[fold] = features(space, "audio", [row.audio or "" for row in of_fold])[0].pooled
        y[fold] = [row.label or "" for row in of_fold]
    found_by = {decay: probe(x, y, decay) for decay in (0.1, 1.0, 10.0, 100.0)}
    shown = ", ".join(f"{decay:g}: {accuracy:.1%}" for decay, accuracy in found_by.items())
    print(f"linear probe on the same frozen vectors, by weight decay: {shown}")


def probe(x: dict[str, NDArray[np.float32]], y: dict[str, list[str]], decay: float) -> float:
    """Return the accuracy on fold 2 of logistic regression on fold 1."""
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=1 / decay, max_iter=1_000)).fit(x["1"], y["1"])
    return float(fitted.score(x["2"], y["2"]))


def letters(chance: random.Random) -> str:
    return "".join(chance.choices(string.ascii_lowercase, k=chance.randint(3, 9)))


def read_rows(file: Path, **where: str) -> list[Row]:
    """Return a table's rows; none if it is no table of items."""
    try:
        return list(read_pairs(file, where=where).rows)
    except ValueError:
        return []


def features(space: JointSpace, modality: Modality, items: list[str]) -> tuple[Features, list[int]]:
    cache = FeatureCache(space.features_revision(modality))
    found = frozen_features(lambda: space.backbone(modality), cache, items, modality=modality)
    return found.features, found.places.tolist()


def vectors(space: JointSpace, modality: Modality, items: list[str]) -> tuple[Vectors, list[int]]:
    """Return the vectors of what can be encoded, and its places."""
    of, places = features(space, modality, items)
    return space.projection(modality, of.pooled.shape[1])(of), places


def told(*arguments: str) -> dict[str, Any]:
    finished = subprocess.run([*TRIVIUM, *arguments, "--json"], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


def recalls(recall: dict[str, float]) -> str:
    return " / ".join(f"{recall[f'R@{k}']:.1%}" for k in (1, 5, 10))


if __name__ == "__main__":
    main()
