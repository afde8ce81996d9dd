"""The choices behind the default space: how labels are combined, and which part of a picture is looked at.

Pictures: Tux Paint's stamps (caption to picture) and 400 photos of the Flickr8k development split (2,000 captions),
recall. Sounds: UrbanSound's ten classes, zero-shot accuracy by the bare class names. Flickr8k and UrbanSound are found
through TRIVIUM_DATA (default ../shared/data) and left out where they are missing.
"""

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from machine import describe
from numpy.typing import NDArray
from PIL import Image
from stamps import ROOT, stamps
from torchvision.transforms import v2

from trivium.encoders.base import unit_rows
from trivium.encoders.batching import encode
from trivium.encoders.decoding.pictures import decode_image
from trivium.encoders.registry import build_backbone
from trivium.fusion.projections.plain import IdentityProjection, softmax
from trivium.pipeline.space.config import Labels, read_labels
from trivium.pipeline.space.joint import load_space, space_folders
from trivium.pipeline.space.projections import ProjectedEncoder

DATA = Path(os.environ.get("TRIVIUM_DATA", ROOT.parent / "shared" / "data"))
LABELS = space_folders()["trivium-labels"]
Matrix = NDArray[np.float32]


def main() -> None:
    print(describe())
    plain_text = ProjectedEncoder(load_space().space, build_backbone("minilm-l6"), IdentityProjection())

    def text(items: Sequence[str]) -> Matrix:
        return encode(plain_text, items, batch_size=64)

    imagenet = label_vectors(read_labels(LABELS / "imagenet.json"), text)
    pictures(imagenet, text)
    sounds(imagenet.mean(axis=0), text)


def pictures(all_labels: Matrix, text: Callable[[Sequence[str]], Matrix]) -> None:
    labels = read_labels(LABELS / "imagenet.json")
    vectors = label_vectors(labels, text, head="imagenet")
    mean = all_labels.mean(axis=0)
    sets = [("stamps", [s.path for s in stamps(".png", ".svg")], [(s.caption, s.path) for s in stamps(".png", ".svg")])]
    if (DATA / "flickr8k").is_dir():
        rows = [r for r in csv.DictReader((DATA / "flickr8k" / "captions.csv").open()) if r["split"] == "dev"]
        photos = sorted({located(row["path"], "flickr8k") for row in rows})[:400]
        asked = [(row["caption"], located(row["path"], "flickr8k")) for row in rows]
        sets.append(("Flickr8k", photos, [pair for pair in asked if pair[1] in set(photos)]))
    for name, files, pairs in sets:
        print(f"\n{name}: {len(files)} pictures\n\n| picture | labels | R@1 | R@5 | R@10 |\n|---|---|---|---|---|")
        decoded = [decode_image(file.read_bytes()) for file in files]
        captions = sorted({caption for caption, _ in pairs})
        right: dict[str, set[Path]] = {}
        for caption, file in pairs:
            right.setdefault(caption, set()).add(file)
        relevant = np.array([[file in right[caption] for file in files] for caption in captions])
        queries = text(captions)
        squeezed = image_logits(decoded, squeeze)
        for shown, logits in (
            ("squeezed", squeezed),
            ("centre", image_logits(decoded, centre)),
            ("on white", image_logits(decoded, pad)),
        ):
            row(
                shown,
                "all, t=2, centred",
                unit_rows(queries - mean),
                softmax(logits / np.float32(2)) @ (vectors - mean),
                relevant,
            )
        for told, weights, centred in (
            ("ConSE: ten, t=1", top(softmax(squeezed), 10), False),
            ("ten, t=1, centred", top(softmax(squeezed), 10), True),
            ("all, t=1", softmax(squeezed), False),
            ("all, t=1, centred", softmax(squeezed), True),
            ("all, t=2", softmax(squeezed / np.float32(2)), False),
            ("all, t=3, centred", softmax(squeezed / np.float32(3)), True),
        ):
            origin = mean if centred else np.zeros_like(mean)
            row("squeezed", told, unit_rows(queries - origin), weights @ (vectors - origin), relevant)


def sounds(text_mean: Matrix, text: Callable[[Sequence[str]], Matrix]) -> None:
    if not (DATA / "urbansound").is_dir():
        print("\nUrbanSound is not there: left out")
        return
    rows = list(csv.DictReader((DATA / "urbansound" / "clips.csv").open()))
    backbone = build_backbone("aisfx")
    prepared = [backbone.prepare(located(row["path"], "urbansound")) for row in rows]
    batches = [backbone.features(prepared[start : start + 32]).logits for start in range(0, len(prepared), 32)]
    logits = {head: np.concatenate([batch[head] for batch in batches]) for head in batches[0]}
    names = sorted({row["label"] for row in rows})
    truth = np.array([names.index(row["label"]) for row in rows])
    labels = read_labels(LABELS / "ucs.json")
    prompts = text([name.replace("_", " ") for name in names])
    mean = label_vectors(labels, text).mean(axis=0)
    print(f"\nUrbanSound: {len(rows)} clips, {len(names)} classes\n\n| heads | labels | accuracy |\n|---|---|---|")
    for heads in (["prosfx"], ["soundly"], ["ucs_mixed"], list(labels.heads)):
        for temperature, centred in ((1, False), (1, True), (4, False), (4, True)):
            origin = mean if centred else np.zeros_like(mean)
            parts = [
                softmax((logits[head] / temperature).astype(np.float32))
                @ (label_vectors(labels, text, head=head) - origin)
                for head in heads
            ]
            queries = unit_rows(prompts - (text_mean if centred else origin))
            found = (unit_rows(np.mean(parts, axis=0)) @ queries.T).argmax(axis=1)
            told = f"all, t={temperature}{', centred' if centred else ''}"
            print(f"| {' + '.join(heads)} | {told} | {(found == truth).mean():.1%} |")


def label_vectors(labels: Labels, text: Callable[[Sequence[str]], Matrix], *, head: str | None = None) -> Matrix:
    """Return one vector for each class of a head, or for each of all classes, shape (c, d)."""
    names = labels.heads[head] if head else sorted(labels.phrases)
    words = [word for name in names for word in labels.phrases[name]]
    vectors = iter(text(words))
    return unit_rows(np.stack([np.mean([next(vectors) for _ in labels.phrases[name]], axis=0) for name in names]))


def image_logits(decoded: Sequence[Image.Image], fit: Callable[[Image.Image], Image.Image]) -> Matrix:
    backbone = build_backbone("efficientnet-lite0")
    parts = []
    for start in range(0, len(decoded), 32):
        batch = [np.asarray(v2.functional.pil_to_tensor(fit(image))) for image in decoded[start : start + 32]]
        parts.append(backbone.features(batch).logits["imagenet"])
    return np.concatenate(parts)


def squeeze(image: Image.Image) -> Image.Image:
    return image.resize((224, 224), Image.Resampling.BICUBIC)


def centre(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top_ = (image.width - side) // 2, (image.height - side) // 2
    return squeeze(image.crop((left, top_, left + side, top_ + side)))


def pad(image: Image.Image) -> Image.Image:
    side = max(image.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return squeeze(square)


def top(probabilities: Matrix, count: int) -> Matrix:
    """Keep the ``count`` likeliest classes of each row, scaled to sum 1."""
    least = np.sort(probabilities, axis=1)[:, -count][:, np.newaxis]
    kept = np.where(probabilities >= least, probabilities, 0)
    return np.asarray(kept / kept.sum(axis=1, keepdims=True), np.float32)


def located(path: str, folder: str) -> Path:
    return DATA / path if (DATA / path).exists() else DATA / folder / path


def row(picture: str, labels: str, queries: Matrix, gallery: Matrix, relevant: NDArray[np.bool_]) -> None:
    scores = queries @ unit_rows(gallery).T
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    ranks = (scores > best).sum(axis=1)
    print(f"| {picture} | {labels} | " + " | ".join(f"{(ranks < k).mean():.1%}" for k in (1, 5, 10)) + " |", flush=True)


if __name__ == "__main__":
    main()
