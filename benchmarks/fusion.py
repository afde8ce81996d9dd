"""Fusion on real products and captions: what a default FusedClassifier gains over its best part, or does not.

    python benchmarks/fusion.py fashion      products with masked titles and with titles as they are
    python benchmarks/fusion.py networks     the trained fusions on the masked titles
    python benchmarks/fusion.py missing      half of the photos gone at test, with and without modality dropout
    python benchmarks/fusion.py matching     does this caption belong to this photo?
    python benchmarks/fusion.py quantised    masked titles encoded in int8, and in float32
    python benchmarks/fusion.py speed        a million stored vectors; what FusedFeatures costs over the bare encoders

Needs TRIVIUM_DATA (default ../shared/data) and the extra `learn`. Items are encoded once, by the estimators' own way.
Splits: products whose class has at least 100 of the 4,000, in the order of `numpy.random.default_rng(seed)`'s
permutation, 1,700 to train and the next 900 to test; seeds 0 to 4. Captions: the table's own split by photo. Intervals
are 95 %, by Student's t over the seeds, paired where two are compared; of matching by drawing test rows.
"""

import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas
from machine import describe
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trivium.encoders.base import Modality
from trivium.encoders.networks.contract import Precision
from trivium.fusion import BlockClassifier, FusedFeatures
from trivium.fusion.combination import unit_means
from trivium.fusion.networks.registry import FUSIONS
from trivium.pipeline.features.frames import blocks_of, encode_frame, space_named, table_of, views_of
from trivium.pipeline.fused.report import told, with_interval
from trivium.pipeline.space.joint import DEFAULT_SPACE

DATA = Path(os.environ.get("TRIVIUM_DATA", Path(__file__).parents[2] / "shared" / "data"))
TARGETS = ("gender", "usage", "season", "colour")
SEEDS = range(5)
PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
OF_NETWORKS = ("gender", "colour")  # what networks are trained for: they take their time
TRAIN, TEST, LEAST = 1_700, 900, 100
# Words for men, women and children, whatever their ending.
PEOPLE = (
    "men man mens women woman womens boy boys girl girls kid kids unisex male female lady ladies gent gents gentleman "
    "gentlemen child children baby babies infant toddler teen teens junior juniors adult guy guys his her him she he "
    "mother father"
).split()


class Layout(TypedDict):
    """Where in a table what is: what an estimator over tables is told."""

    blocks: dict[str, tuple[int, int]]
    views: dict[str, tuple[int, ...]]


def main() -> None:
    parts: dict[str, Callable[[], None]] = {
        "fashion": fashion,
        "networks": networks,
        "missing": missing,
        "matching": matching,
        "quantised": quantised,
        "speed": speed,
    }
    wanted = sys.argv[1:] or list(parts)
    if unknown := [name for name in wanted if name not in parts]:
        raise SystemExit(f"no part '{unknown[0]}': there are {', '.join(parts)}")
    if not (DATA / "fashion" / "products.csv").is_file():
        raise SystemExit(f"{DATA / 'fashion'} is missing: set TRIVIUM_DATA")
    print(describe(), flush=True)
    warnings.filterwarnings("ignore", category=UserWarning)
    for name in wanted:
        print(f"\n## {name}\n", flush=True)
        parts[name]()


def fashion() -> None:
    """Compare the default with its parts."""
    frame = products()
    print(
        "macro-F1, mean of five seeds. LR: standardised pooled features, logistic regression (C 1); averaged: of its "
        "probabilities. Default: FusedClassifier(); of one column only; of both.\n"
    )
    print(
        "| titles | label (classes) | LR title | LR photo | LR concatenated | LR averaged | default, title | "
        "default, photo | default, both | over best LR part | over own best part | over LR averaged | ways |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for column in ("masked", "title"):
        table, layout, pooled = encoded(frame.assign(text=frame[column]))
        for target in TARGETS:
            found: dict[str, list[float]] = {}
            ways = []
            for seed in SEEDS:
                train, test, labels = split(frame, target, seed)
                lr = {m: logistic(pooled[m], labels, train) for m in ("text", "image")}
                both = np.hstack([pooled["text"], pooled["image"]])
                chances = {f"lr-{m}": lr[m](pooled[m][test]) for m in lr}
                chances["lr-concatenated"] = logistic(both, labels, train)(both[test])
                chances["lr-averaged"] = (chances["lr-text"] + chances["lr-image"]) / 2
                model = BlockClassifier(**layout).fit(table[train], labels[train])
                # The model of a modality alone is part of it: the very one that it would be if trained on that alone.
                for name, hidden in (("text", "image"), ("image", "text"), ("both", None)):
                    chances[f"own-{name}"] = model.predict_proba(without(table[test], layout, hidden))
                for name, probabilities in chances.items():
                    found.setdefault(name, []).append(score(labels[test], model.classes_[probabilities.argmax(axis=1)]))
                ways.append(model.models()["image", "text"].way)
            best = max(("lr-text", "lr-image"), key=lambda name: np.mean(found[name]))
            own = max(("own-text", "own-image"), key=lambda name: np.mean(found[name]))
            names = ("lr-text", "lr-image", "lr-concatenated", "lr-averaged", "own-text", "own-image", "own-both")
            cells = [
                column,
                f"{target} ({len(model.classes_)})",
                *(f"{np.mean(found[name]):.1f}" for name in names[:-1]),
                f"**{np.mean(found['own-both']):.1f}**",
                *(difference(found["own-both"], found[name]) for name in (best, own, "lr-averaged")),
                ", ".join(f"{way} {ways.count(way)}" for way in dict.fromkeys(ways)),
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


def networks() -> None:
    """Compare the trained fusions with the default."""
    frame = products()
    table, layout, _ = encoded(frame.assign(text=frame["masked"]))
    names = ("auto", "sum", "product", "late", "agreement", *FUSIONS)
    print("macro-F1, masked titles, mean of five seeds and the 95 % interval of the mean; seconds of a fit.\n")
    print(f"| fusion | {' | '.join(OF_NETWORKS)} | s |")
    print(f"|{'---|' * (len(OF_NETWORKS) + 2)}")
    for name in names:
        cells, seconds = [], []
        for target in OF_NETWORKS:
            scores = []
            for seed in SEEDS:
                train, test, labels = split(frame, target, seed)
                started = time.process_time()
                model = BlockClassifier(**layout, fusion=name, random_state=seed).fit(table[train], labels[train])
                seconds.append(time.process_time() - started)
                scores.append(score(labels[test], model.predict(table[test])))
            cells.append(f"{np.mean(scores):.1f} ± {half_width(scores):.1f}")
        print(f"| {name} | {' | '.join(cells)} | {np.mean(seconds):.0f} |", flush=True)


def missing() -> None:
    """Take half of the photos away at test."""
    frame = products()
    table, layout, _ = encoded(frame.assign(text=frame["masked"]))
    print(
        "macro-F1, masked titles, five seeds: with all photos, with half of them gone at test, and what that costs.\n"
    )
    print("| label | fusion | modality dropout | all | half gone | lost |")
    print("|---|---|---|---|---|---|")
    for target in OF_NETWORKS:
        for name, dropout in (
            ("auto", 0.0),
            *(
                (name, share)
                for name in ("concatenation", "gated-units", "self-attention")
                for share in (0.0, 0.3, 0.5)
            ),
        ):
            whole, gone = [], []
            for seed in SEEDS:
                train, test, labels = split(frame, target, seed)
                model = BlockClassifier(**layout, fusion=name, modality_dropout=dropout, random_state=seed)
                model.fit(table[train], labels[train])
                hidden = table[test].copy()
                rows = np.random.default_rng(seed).permutation(len(test))[: len(test) // 2]
                hidden[rows, slice(*layout["blocks"]["image"])] = np.nan
                whole.append(score(labels[test], model.predict(table[test])))
                gone.append(score(labels[test], model.predict(hidden)))
            cells = [target, name, "none needed" if name == "auto" else f"{dropout:g}"]
            cells += [f"{np.mean(whole):.1f}", f"{np.mean(gone):.1f}", difference(whole, gone)]
            print(f"| {' | '.join(cells)} |", flush=True)


def matching() -> None:
    """Tell whether a caption belongs to a photo."""
    frame = pandas.read_csv(DATA / "flickr8k" / "matching_pairs.csv")
    frame["image"] = [str(DATA / "flickr8k" / path) for path in frame["path"]]
    frame["text"] = frame["caption"]
    table, layout, pooled = encoded(frame)
    labels = frame["label"].to_numpy()
    train, test = (np.flatnonzero(frame["split"] == name) for name in ("train", "dev"))
    print(
        f"{len(train):,} pairs to train and {len(test):,} to test, no photo in both. Accuracy and its 95 % interval.\n"
    )
    print("| | accuracy |")
    print("|---|---|")
    lr = {m: logistic(pooled[m], labels, train)(pooled[m][test]) for m in ("text", "image")}
    both = np.hstack([pooled["text"], pooled["image"]])
    rows = {"LR caption": lr["text"], "LR photo": lr["image"], "LR averaged": (lr["text"] + lr["image"]) / 2}
    rows["LR concatenated"] = logistic(both, labels, train)(both[test])
    said = {name: probabilities.argmax(axis=1) for name, probabilities in rows.items()}
    started = time.process_time()
    model = BlockClassifier(**layout).fit(table[train], labels[train])
    seconds = time.process_time() - started
    said["default, caption"] = model.predict(without(table[test], layout, "image"))
    said["default, photo"] = model.predict(without(table[test], layout, "text"))
    said["default, both"] = model.predict(table[test])
    for name, predicted in said.items():
        figure = with_interval(labels[test], predicted, lambda a, b: float((a == b).mean()), seed=0)
        print(f"| {name} | {told(figure)} |")
    used = model.models()["image", "text"]
    tried = ", ".join(f"{way} {100 * value:.1f}" for way, value in used.tried.items())
    print(f"\nway: {used.way}; on validation (macro-F1): {tried}; {seconds:.0f} s of processor for the fit", flush=True)


def quantised() -> None:
    """Compare titles encoded in int8 with titles encoded in float32; pictures are in float32."""
    frame = products()
    frame = frame.assign(text=frame["masked"])
    titles = list(dict.fromkeys(frame["text"]))
    rates = {precision: titles_a_second(titles, precision) for precision in PRECISIONS}
    tables = {precision: encoded(frame, precision) for precision in PRECISIONS}
    print("macro-F1, masked titles, mean of five seeds; titles a second of processor time, tokenizing included.\n")
    print("| label | title: float32 | int8 | difference | title and photo: float32 | int8 | difference |")
    print("|---|---|---|---|---|---|---|")
    for target in TARGETS:
        found: dict[tuple[str, Precision], list[float]] = {}
        for seed in SEEDS:
            train, test, labels = split(frame, target, seed)
            for precision, (table, layout, _) in tables.items():
                model = BlockClassifier(**layout).fit(table[train], labels[train])
                for name, hidden in (("title", "image"), ("both", None)):
                    predicted = model.predict(without(table[test], layout, hidden))
                    found.setdefault((name, precision), []).append(score(labels[test], predicted))
        cells = [target]
        for name in ("title", "both"):
            exact, rough = found[name, "float32"], found[name, "int8"]
            cells += [f"{np.mean(exact):.1f}", f"{np.mean(rough):.1f}", difference(rough, exact)]
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\ntitles a second: {', '.join(f'{name} {rate:,.0f}' for name, rate in rates.items())}", end="")
    print(f", {rates['int8'] / rates['float32']:.2f}x", flush=True)


def titles_a_second(titles: list[str], precision: Precision) -> float:
    """Return titles encoded in a second of processor time, median of five."""
    encoder = space_named(DEFAULT_SPACE, "cpu", precision).encoder("text")
    encoder.embed(encoder.prepare_all(titles[:64]))
    spent = []
    for _ in range(5):
        started = time.process_time()
        encoder.embed(encoder.prepare_all(titles))
        spent.append(time.process_time() - started)
    return len(titles) / float(np.median(spent))


def speed() -> None:
    """Tell what fusing costs."""
    random = np.random.default_rng(0)
    dim, rows = space_named(DEFAULT_SPACE).space.dim, 500_000
    chunk = {m: random.normal(size=(50_000, dim)).astype(np.float32) for m in ("text", "image")}
    some = np.hstack([chunk["text"][:2_500], chunk["image"][:2_500]])
    labels = random.integers(0, 4, len(some))
    blocks = {"text": (0, dim), "image": (dim, 2 * dim)}
    print(f"{2 * rows:,} vectors of {dim} numbers, two a row, from memory:\n")
    print("| | processor seconds | seconds |")
    print("|---|---|---|")
    at = np.arange(len(chunk["text"]))
    fusers: dict[str, Any] = {
        "mean": lambda: unit_means([(at, part) for part in chunk.values()], count=len(at), dim=dim)
    }
    for name in ("gated-units", "self-attention"):
        model = BlockClassifier(blocks=blocks, fusion=name).fit(some, labels).model_
        there = {m: np.ones(len(chunk[m]), bool) for m in chunk}
        fusers[name] = lambda model=model, there=there: model.fused(chunk, there)
    default = BlockClassifier(blocks=blocks, fusion="sum").fit(some, labels)
    whole = np.hstack([chunk["text"], chunk["image"]])
    fusers["predictions of a default classifier (2,500 centres)"] = lambda: default.predict_proba(whole)
    for name, fuse in fusers.items():
        started = time.process_time(), time.perf_counter()
        fuse()
        processor, wall = (seconds * rows / len(whole) for seconds in took(started))
        print(f"| {name} | {processor:.1f} | {wall:.1f} |", flush=True)
    overhead()


def overhead() -> None:
    """Time FusedFeatures with nothing kept, and the encoders alone."""
    frame = products().sample(600, random_state=0)
    frame = frame.assign(text=frame["title"])[["text", "image"]].reset_index(drop=True)
    space = space_named(DEFAULT_SPACE)
    modalities: tuple[Modality, ...] = ("text", "image")
    for m in modalities:
        space.encode(m, list(frame[m][:8]))  # loads it
    alone, fused, kept = [], [], []
    for _ in range(7):  # one after the other, so that what else the machine does meets both
        started = time.process_time(), time.perf_counter()
        for m in modalities:
            space.encode(m, list(frame[m]))
        alone.append(took(started))
        with tempfile.TemporaryDirectory() as cache:
            maker = FusedFeatures(cache=cache)
            started = time.process_time(), time.perf_counter()
            maker.fit(frame)
            fused.append(took(started))
            started = time.process_time(), time.perf_counter()
            maker.transform(frame)
            kept.append(took(started))
    print(f"\n{len(frame)} texts and photos, nothing kept, medians of seven, processor / wall seconds:")
    for name, seconds in (("encoders alone", alone), ("FusedFeatures.fit", fused), (".transform, kept", kept)):
        print(f"- {name}: {np.median([s[0] for s in seconds]):.2f} / {np.median([s[1] for s in seconds]):.2f}")
    ratios = [[a[k] / b[k] - 1 for a, b in zip(fused, alone, strict=True)] for k in (0, 1)]
    print(f"- overhead, median of the pairs: {np.median(ratios[0]):+.1%} / {np.median(ratios[1]):+.1%}", flush=True)


def products() -> pandas.DataFrame:
    """Return the products, with titles that have lost every word that is a label, and words for people."""
    frame = pandas.read_csv(DATA / "fashion" / "products.csv")
    words = {str(value).lower() for target in TARGETS for value in frame[target].dropna()} | set(PEOPLE)
    pattern = re.compile(
        r"\b(?:" + "|".join(sorted(map(re.escape, words), key=len, reverse=True)) + r")(?:'?s)?\b", re.IGNORECASE
    )
    frame["masked"] = [" ".join(pattern.sub(" ", title).split()) or "product" for title in frame["title"]]
    frame["image"] = [str(DATA / "fashion" / path) for path in frame["path"]]
    return frame


def encoded(
    frame: pandas.DataFrame, precision: Precision = "float32"
) -> tuple[np.ndarray, Layout, dict[str, np.ndarray]]:
    """Return the table that FusedClassifier makes, where in it what is, and the pooled features alone."""
    found = encode_frame(frame, space_named(DEFAULT_SPACE, "cpu", precision), ("text", "image"))
    views = views_of(found)
    layout = Layout(blocks=blocks_of(views), views=views)
    return table_of(found, layout["blocks"]), layout, {str(m): of.pooled for m, of in found.features.items()}


def split(frame: pandas.DataFrame, target: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows to train and to test, and all labels."""
    labels = frame[target].fillna("").to_numpy(str)
    counts = frame[target].value_counts()
    usable = np.flatnonzero(np.isin(labels, list(counts[counts >= LEAST].index)))
    order = np.random.default_rng(seed).permutation(usable)
    return order[:TRAIN], order[TRAIN : TRAIN + TEST], labels


def logistic(rows: np.ndarray, labels: np.ndarray, train: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Fit the plain baseline; return its probabilities."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(rows[train], labels[train])
    predict: Callable[[np.ndarray], np.ndarray] = model.predict_proba
    return predict


def without(table: np.ndarray, layout: Layout, hidden: str | None) -> np.ndarray:
    """Return a table without a modality."""
    found = table.copy()
    if hidden is not None:
        found[:, slice(*layout["blocks"][hidden])] = np.nan
    return found


def score(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Return macro-F1 in percent."""
    return 100 * float(f1_score(actual, predicted, average="macro", zero_division=0))


def difference(first: list[float], second: list[float]) -> str:
    """Return the mean of paired differences with its 95 % interval."""
    differences = np.subtract(first, second)
    return f"{differences.mean():+.1f} ± {half_width(list(differences)):.1f}"


def half_width(values: list[float]) -> float:
    """Return half of the 95 % interval of a mean, by Student's t."""
    return float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))


def took(started: tuple[float, float]) -> tuple[float, float]:
    """Return seconds of processor and of the clock."""
    return time.process_time() - started[0], time.perf_counter() - started[1]


if __name__ == "__main__":
    main()
