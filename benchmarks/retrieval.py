"""How good the label bridge is: recall on Tux Paint's stamps, captions not indexed.

Not `trivium-base`: most of the stamps were trained on. What it does on those held out: docs/benchmarks.md.

A query is found at k when one of its right answers is among the first k. Captions that occur several times are one
query with several right answers. Intervals: bootstrap over queries, 95 %, seeded. Chance and the keyword baseline are
exact expectations; ties (of the keyword search) are taken in random order, in expectation.
"""

import re
from collections.abc import Sequence

import numpy as np
from machine import describe
from numpy.typing import NDArray
from stamps import Stamp, stamps

from trivium.pipeline.space.joint import LABELS_SPACE, JointSpace, load_space

KS = (1, 5, 10)


def main() -> None:
    print(describe())
    space = load_space(LABELS_SPACE, announce=print)
    print(f"space {space.space}\n")
    pictures, png, sounds = stamps(".png", ".svg"), stamps(".png"), stamps(".ogg", ".wav")
    print("| task | queries | gallery | R@1 | R@5 | R@10 |\n|---|---|---|---|---|---|")
    captions_to("caption to picture", space, pictures, "image")
    captions_to("caption to picture, PNG only", space, png, "image")
    captions_to("caption to sound", space, sounds, "audio")
    pictures_to_sounds(space, pictures, sounds)


def captions_to(name: str, space: JointSpace, gallery: Sequence[Stamp], modality: str) -> None:
    """Find each distinct caption's own files."""
    captions = sorted({stamp.caption for stamp in gallery})
    relevant = np.array([[stamp.caption == caption for stamp in gallery] for caption in captions])
    vectors = space.encode(modality, [stamp.path for stamp in gallery])  # type: ignore[call-overload]
    report(name, space.encode("text", captions) @ vectors.T, relevant)
    report_expected(f"{name}: chance", np.zeros_like(relevant, dtype=np.float32), relevant)
    names = [words(stamp.path.stem) for stamp in gallery]
    overlap = np.array([[len(words(caption) & name) for name in names] for caption in captions], np.float32)
    report_expected(f"{name}: words of the file name", overlap, relevant)


def pictures_to_sounds(space: JointSpace, pictures: Sequence[Stamp], sounds: Sequence[Stamp]) -> None:
    """Find the sound that lies beside a picture, among all captioned sounds."""
    beside = [
        picture for picture in pictures if any(s.path.with_suffix("") == picture.path.with_suffix("") for s in sounds)
    ]
    relevant = np.array([[s.path.with_suffix("") == p.path.with_suffix("") for s in sounds] for p in beside])
    queries = space.encode("image", [picture.path for picture in beside])
    report("picture to sound", queries @ space.encode("audio", [s.path for s in sounds]).T, relevant)
    report_expected("picture to sound: chance", np.zeros(relevant.shape, np.float32), relevant)


def report(name: str, scores: NDArray[np.float32], relevant: NDArray[np.bool_]) -> None:
    """Print recall with intervals; scores (q, n), relevant (q, n)."""
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    ranks = (scores > best).sum(axis=1)  # of the best right answer, from 0
    rng = np.random.default_rng(0)
    cells = []
    for k in KS:
        found = ranks < k
        means = [found[rng.integers(0, len(found), len(found))].mean() for _ in range(2000)]
        low, high = np.percentile(means, [2.5, 97.5])
        cells.append(f"{found.mean():.1%} ({low:.1%} to {high:.1%})")
    print(f"| **{name}** | {len(scores)} | {scores.shape[1]} | {' | '.join(cells)} |")


def report_expected(name: str, scores: NDArray[np.float32], relevant: NDArray[np.bool_]) -> None:
    """Print the expected recall when equal scores are ordered at random."""
    cells = []
    for k in KS:
        found = [expected_hit(row, right, k) for row, right in zip(scores, relevant, strict=True)]
        cells.append(f"{np.mean(found):.1%}")
    print(f"| {name} | {len(scores)} | {scores.shape[1]} | {' | '.join(cells)} |")


def expected_hit(scores: NDArray[np.float32], right: NDArray[np.bool_], k: int) -> float:
    """Return the chance that a right answer is among the first k, ties in random order."""
    for level in np.unique(scores)[::-1]:
        tied = scores == level
        among, good = int(tied.sum()), int((tied & right).sum())
        if good:
            # none of the `k` places left at this level gets one of the `good` among `among`
            places = min(k, among)
            misses = (
                np.prod([(among - good - i) / (among - i) for i in range(places)]) if among - good >= places else 0.0
            )
            return float(1 - misses)
        k -= among
        if k <= 0:
            return 0.0
    return 0.0


def words(text: str) -> set[str]:
    """Words of a caption or file name, without digits and endings of the plural."""
    return {word.removesuffix("s") for word in re.findall(r"[a-z]{3,}", text.lower())} - {"the", "and", "with", "for"}


if __name__ == "__main__":
    main()
