"""Parts of `text_learning.py` in which one modality's knowledge serves another: recall, transfer, a student."""

import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray
from text_learning_data import DATA, accuracy_cell, gain_cell, labelled, logistic, mean_cell, regression, table, told

from trivium.encoders.networks.contract import Precision
from trivium.pipeline.features.frozen import encode_items
from trivium.pipeline.fused.imagined import NEAREST, blended
from trivium.pipeline.fused.transfer import TransferClassifier
from trivium.pipeline.space.joint import JointSpace, load_space

PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
SEEDS = range(5)
RIDGES = (1.0, 10.0, 100.0, 1000.0)
TEST_PRODUCTS = 1000
STUDENTS: dict[str, list[str]] = {
    "Transformer 192, 2 layers": ["--width", "192", "--layers", "2"],
    "LSTM 256": ["--student", "lstm", "--width", "256"],
}


def imagination(work: Path) -> None:
    """IMDB: each review's features beside those of the pictures, or sounds, that are nearest to it."""
    train, test = labelled("train"), labelled("test")
    space = flickr_space(work)
    pictures = sorted(
        {str(DATA / "flickr8k" / r["path"]) for r in table("flickr8k", "captions.csv") if r["split"] == "train"}
    )
    sounds = [str(DATA / "urbansound" / row["path"]) for row in table("urbansound", "clips.csv")]
    own = [features_in(space, "text", of.texts) for of in (train, test)]
    base, heard = load_space(), {}
    heard["6,000 photos of Flickr8k (training)"] = recalled(space, "image", pictures, [of[1] for of in own])
    in_base = [features_in(base, "text", of.texts)[1] for of in (train, test)]
    heard["480 sounds of UrbanSound8K"] = recalled(base, "audio", sounds, in_base)
    alone = judged(own[0][0], train.labels, own[1][0], test.labels)
    print("| IMDB, logistic regression on | accuracy (95 %) | gain over the text alone |\n|---|---|---|")
    print(f"| MiniLM's features | {accuracy_cell(alone[0])} | |")
    for name, (of_train, of_test) in heard.items():
        blind = judged(of_train, train.labels, of_test, test.labels)
        both = judged(np.hstack([own[0][0], of_train]), train.labels, np.hstack([own[1][0], of_test]), test.labels)
        mean = (alone[1] + blind[1]).argmax(axis=1) == alone[2]
        print(f"| recalled alone: {name} | {accuracy_cell(blind[0])} | {gain_cell(blind[0], alone[0])} |")
        print(f"| both, side by side | {accuracy_cell(both[0])} | {gain_cell(both[0], alone[0])} |")
        print(f"| both, probabilities averaged | {accuracy_cell(mean)} | {gain_cell(mean, alone[0])} |", flush=True)


def transfer(work: Path) -> None:
    """Fashion: a classifier of photos applied to titles, by article type."""
    print("| article type of 1,000 titles (5 splits) | accuracy | share of the classifier of titles |\n|---|---|---|")
    found: dict[str, list[float]] = {}
    for seed in SEEDS:
        space, train, test = fashion_space(work, seed)
        known, asked = frame_of(train), frame_of(test)
        labels, truth = [row["article_type"] for row in train], [row["article_type"] for row in test]
        of_titles = TransferClassifier(space=space, train_on="text").fit(known, labels)
        found.setdefault("titles", []).append(of_titles.score(asked[["text"]], truth))
        found.setdefault("titles, on photos", []).append(of_titles.score(asked[["image"]], truth))
        for name, centring in (("photos, centred", True), ("photos, not centred", False)):
            fitted = TransferClassifier(space=space, train_on="image", centring=centring).fit(known, labels)
            found.setdefault(name, []).append(fitted.score(asked[["text"]], truth))
            found.setdefault(f"{name}: share", []).append(found[name][-1] / found["titles"][-1])
            found.setdefault("photos, on photos", []).append(fitted.score(asked[["image"]], truth))
    for name in ("titles", "photos, centred", "photos, not centred"):
        share = mean_cell(found[f"{name}: share"]) if f"{name}: share" in found else "100 %"
        print(f"| learnt from {name} | {mean_cell(found[name])} | {share} |")
    print(f"| (learnt from photos, asked for photos) | {mean_cell(found['photos, on photos'])} | |")
    print(f"| (learnt from titles, asked for photos) | {mean_cell(found['titles, on photos'])} | |", flush=True)


def few_labels(work: Path) -> None:
    """Fashion: photos with few labels, and what titles without labels know of them."""
    print("| article type of 1,000 photos, labels a type | photo | titles recalled | both, averaged | gain |")
    print("|---|---|---|---|---|")
    for count in (1, 2, 5, 20):
        scores: dict[str, list[float]] = {"photo": [], "recalled": [], "both": [], "gain": []}
        for seed in SEEDS:
            folder, train, test = fashion_space(work, seed)
            space = load_space(folder)
            random = np.random.default_rng(seed)
            chosen = few_of([row["article_type"] for row in train], count, random)
            pooled, vectors = features_in(space, "image", [row["image"] for row in train])
            asked, asked_vectors = features_in(space, "image", [row["image"] for row in test])
            values, keys = features_in(space, "text", [row["title"] for row in train])
            # A photo's own title is no help: it would not be there for a new one.
            own, cosines = nearest(vectors[chosen], keys, k=20)
            cosines[own == chosen[:, np.newaxis]] = -np.inf
            labels = [train[place]["article_type"] for place in chosen]
            known = [row for row, of in enumerate(test) if of["article_type"] in set(labels)]
            truth = [test[row]["article_type"] for row in known]
            of_photo = logistic().fit(pooled[chosen], labels)
            of_titles = logistic().fit(blended(values, own, cosines), labels)
            said = of_photo.predict_proba(asked[known])
            of_recalled = of_titles.predict_proba(blended(values, *nearest(asked_vectors[known], keys, k=20)))
            places = np.searchsorted(of_photo.classes_, truth)
            for name, given in (("photo", said), ("recalled", of_recalled), ("both", (said + of_recalled) / 2)):
                scores[name].append(float((given.argmax(axis=1) == places).mean()))
            scores["gain"].append(scores["both"][-1] - scores["photo"][-1])
        print(f"| {count} | {' | '.join(mean_cell(scores[name]) for name in scores)} |", flush=True)


def student(work: Path) -> None:
    """Small text encoders that learnt from the teacher of a space aligned on Flickr8k's training split."""
    teacher = work / "flickr"
    flickr_space(work)
    captions = str(DATA / "flickr8k" / "captions.csv")
    texts = [row["caption"] for row in table("flickr8k", "captions.csv") if row["split"] == "dev"]
    print(
        "| text encoder | text to image R@10 | image to text R@10 | of the teacher's | captions a CPU-second | faster |"
    )
    print("|---|---|---|---|---|---|")
    base: tuple[float, float] | None = None
    for name, options in {"MiniLM (the teacher)": [], **STUDENTS}.items():
        folder = teacher if not options else work / f"student-{name.replace(' ', '-').replace(',', '')}"
        if not folder.is_dir():
            told("distill", captions, "--where", "split=train", "--space", str(teacher), "--out", str(folder),
                 "--parts", "15000", "--batch", "128", "--epochs", "8", *options)  # fmt: skip
        for precision in PRECISIONS:
            arguments = ["evaluate", str(folder), captions, "--where", "split=dev", "--precision", precision]
            recall: dict[str, Any] = told(*arguments)["recall"]
            both = [recall[direction]["R@10"] for direction in ("text->image", "image->text")]
            speed = captions_per_second(load_space(folder, precision=precision), texts)
            if base is None:
                base = float(np.mean(both)), speed
            cells = [f"{share:.1%}" for share in both]
            cells += [f"{np.mean(both) / base[0]:.1%}", f"{speed:,.0f}", f"{speed / base[1]:.1f}x"]
            print(f"| {name}, {precision} | {' | '.join(cells)} |", flush=True)


def captions_per_second(space: JointSpace, texts: Sequence[str]) -> float:
    """Return captions a second of processor time, the best of three passes, tokenizing included."""
    encoder = space.encoder("text")
    encoder.embed(encoder.prepare_all(list(texts[:64])))
    spent = []
    for _ in range(3):
        started = time.process_time()
        encoder.embed(encoder.prepare_all(list(texts)))
        spent.append(time.process_time() - started)
    return len(texts) / min(spent)


def flickr_space(work: Path) -> JointSpace:
    """Return a space aligned on Flickr8k's 6,000 training photos, in closed form."""
    target = work / "flickr"
    if not target.is_dir():
        told("align", str(DATA / "flickr8k" / "captions.csv"), "--where", "split=train", "--out", str(target),
             "--encoders", "text=minilm-l6,image=efficientnet-lite0", "--method", "closed-form")  # fmt: skip
    return load_space(target)


def fashion_space(work: Path, seed: int) -> tuple[Path, list[dict[str, str]], list[dict[str, str]]]:
    """Return a space's folder, of photos and titles without labels, the products that it is of, and 1,000 others."""
    rows = [row | {"image": str(DATA / "fashion" / row["path"])} for row in table("fashion", "products.csv")]
    order = np.random.default_rng(seed).permutation(len(rows))
    test, train = [rows[place] for place in order[:TEST_PRODUCTS]], [rows[place] for place in order[TEST_PRODUCTS:]]
    target = work / f"fashion-{seed}"
    if not target.is_dir():
        pairs = work / f"fashion-{seed}.csv"
        with pairs.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["image", "title"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(train)
        told("align", str(pairs), "--out", str(target), "--encoders", "text=minilm-l6,image=efficientnet-lite0",
             "--method", "closed-form")  # fmt: skip
    return target, train, test


def frame_of(rows: Sequence[Mapping[str, str]]) -> pandas.DataFrame:
    """Return the photos and titles of rows."""
    return pandas.DataFrame({"image": [row["image"] for row in rows], "text": [row["title"] for row in rows]})


def few_of(labels: Sequence[str], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw so many places of each label that has as many and five more."""
    found = []
    for label in sorted(set(labels)):
        places = [place for place, of in enumerate(labels) if of == label]
        if len(places) >= count + 5:
            found += list(random.choice(places, count, replace=False))
    return np.array(found, np.int64)


def recalled(
    space: JointSpace, modality: Any, items: Sequence[str], queries: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """Return what the items nearest to queries say, for each of several sets of queries."""
    values, keys = features_in(space, modality, items)
    return [blended(values, *nearest(of, keys)) for of in queries]


def features_in(
    space: JointSpace, modality: Any, items: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what a space's frozen backbone says of items, (n, e), and their vectors in the space, (n, d).

    Those that cannot be encoded have rows of zeros.
    """
    found = encode_items(space, modality, items)
    pooled = np.zeros((len(items), found.features.pooled.shape[1]), np.float32)
    vectors = np.zeros((len(items), space.space.dim), np.float32)
    pooled[found.places] = found.features.pooled
    vectors[found.places] = space.projection(modality, pooled.shape[1])(found.features)
    return pooled, vectors


def nearest(
    queries: NDArray[np.float32], keys: NDArray[np.float32], *, k: int = NEAREST
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the places of the nearest keys (m, d) of each query (n, d), best first, and their cosines, (n, k) each."""
    places, scores = [], []
    for part in np.array_split(queries, max(1, len(queries) // 4096)):
        cosines = part @ keys.T
        places.append(np.argsort(-cosines, axis=1, kind="stable")[:, :k])
        scores.append(np.take_along_axis(cosines, places[-1], axis=1))
    return np.concatenate(places), np.concatenate(scores)


def judged(
    x: NDArray[np.float32], labels: Sequence[str], asked: NDArray[np.float32], truth: Sequence[str]
) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.int64]]:
    """Return which of the asked rows are right, their probabilities, and the places of the truth."""
    fitted = regression(RIDGES).fit(x, labels)
    said = fitted.predict_proba(asked)
    places = np.searchsorted(fitted.classes_, truth)
    return said.argmax(axis=1) == places, said, places
