"""Do explanations mark what matters? The marked part of a hit is deleted, and a random part of the same size.

The deletion fills with something else than the explanation hid with, so that the check is not the same computation:
pictures are explained by blur and checked by plain grey, sounds by silence and by cutting out, texts by leaving words
out and by a filler word. "Better" is the share of hits where deleting the marked part costs more than deleting random
parts does on average (five of them, seeded). Stamps come from `make demo`; the other media from TRIVIUM_DATA.
"""

import argparse
import csv
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from numpy.typing import NDArray
from stamps import ROOT, stamps

from trivium.encoders.base import Encoder
from trivium.encoders.decoding.pictures import decode_image
from trivium.encoders.decoding.sounds import Sound, decode_audio
from trivium.encoders.files.reading import read_file
from trivium.pipeline.explain import drops as method
from trivium.pipeline.explain.drops import (
    ExplainedQuery,
    cell_drops,
    hidden,
    picture_drops,
    shrunken,
    sound_drops,
    text_drops,
    windows,
    word_places,
)
from trivium.pipeline.search.query import QueryPart, query_vectors
from trivium.pipeline.space.joint import JointSpace, load_space

DATA = Path(os.environ.get("TRIVIUM_DATA", ROOT.parent / "shared" / "data"))
SHARE = 0.2  # of the item that is deleted
RANDOM_PARTS = 5
GREY = np.array([124, 116, 104], np.uint8)  # the mean of ImageNet's pictures
FILLER = "something"
CITY_SOUNDS = {"dog bark": "a dog barking", "siren": "a siren", "street music": "music", "gun shot": "a gun shot"}


@dataclass(slots=True)
class Result:
    """Drops of deletion, hit by hit."""

    name: str
    marked: list[float] = field(default_factory=list)
    random: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)  # a baseline that looks at nothing: the centre
    seconds: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)

    def row(self) -> str:
        """Return a line of the table."""
        marked, random = np.array(self.marked), np.array(self.random)
        better = marked > random
        rng = np.random.default_rng(0)
        low, high = np.percentile(rng.choice(better, (2000, len(better))).mean(axis=1), (2.5, 97.5))
        cells = (
            f"{better.mean():.0%} ({low:.0%} to {high:.0%})",
            *(f"{np.mean(values):.3f}" for values in (self.score, marked, random)),
            f"{np.mean(self.other):.3f}" if self.other else "",
            f"{np.median(self.seconds):.1f}" if self.seconds else "",
        )
        return f"| {self.name} | {len(better)} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default=None, help="default: Trivium's own")
    parser.add_argument("--hits", type=int, default=100, help="of each kind")
    parser.add_argument("--only", nargs="*", help="tables to make: pictures, sounds, texts")
    parser.add_argument("--variants", action="store_true", help="compare ways to hide parts too")
    options = parser.parse_args()
    print(describe())
    space = load_space(options.space, announce=print) if options.space else load_space(announce=print)
    print(f"space {space.space}\n")
    print(
        "| hits | n | better than random | score | drop, marked | drop, random | drop, centre | seconds a hit |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    tables = {"pictures": pictures, "sounds": sounds, "texts": texts}
    for name, make in tables.items():
        if options.only is None or name in options.only:
            for result in make(space, options.hits, options.variants):
                print(result.row(), flush=True)


def pictures(space: JointSpace, count: int, variants: bool) -> Iterator[Result]:
    """Captions to pictures."""
    encoder = space.encoder("image")
    for name, (captions, files) in {"stamps": _stamps(".png"), "photos": _photos()}.items():
        chosen = _sample(captions, count)
        gallery = space.encode("image", files)
        best = (space.encode("text", chosen) @ gallery.T).argmax(axis=1)
        hits = [(caption, _pixels(files[place], encoder)) for caption, place in zip(chosen, best, strict=True)]
        yield _pictures(f"{name}: caption to picture", space, hits)
        yield _query_words(f"{name}: words of the query", space, hits)
        if variants:
            yield from _ways(name, space, hits)


def _pictures(name: str, space: JointSpace, hits: Sequence[tuple[str, NDArray[np.uint8]]]) -> Result:
    result, encoder, rng = Result(name), space.encoder("image"), np.random.default_rng(1)
    for caption, pixels in hits:
        query = query_vectors(space, [[QueryPart(modality="text", item=caption)]])[0]
        started = time.perf_counter()
        vector, drops = picture_drops(encoder, pixels, query)
        result.seconds.append(time.perf_counter() - started)
        _delete(encoder, pixels, query, float(vector @ query), {"": drops}, rng, [result])
    return result


def _ways(name: str, space: JointSpace, hits: Sequence[tuple[str, NDArray[np.uint8]]]) -> list[Result]:
    """Compare ways to tell the worth of a cell; all are deleted from the same hits."""
    encoder, rng = space.encoder("image"), np.random.default_rng(6)
    masks = windows((7, 7), (1, 2, 3))
    cells = masks.sum(axis=(1, 2))
    results: list[Result] = []
    for caption, pixels in hits:
        query = query_vectors(space, [[QueryPart(modality="text", item=caption)]])[0]
        fill = method.blurred(pixels)
        vectors = encoder.embed([encoder.prepare(pixels), *(encoder.prepare(hidden(pixels, m, fill)) for m in masks)])
        score, *rest = vectors @ query
        drops = score - np.array(rest)
        ways = {
            "49 cells alone": drops[cells == 1].reshape(7, 7),
            "25 windows of 3 x 3, mean": _mean_of_windows(drops, masks, cells, (9,)),
            "110 windows, mean": _mean_of_windows(drops, masks, cells, (1, 4, 9)),
            "85 windows to 2 x 2, least squares": cell_drops(drops[cells < 9], masks[cells < 9]),
            "110 windows, least squares (ships)": cell_drops(drops, masks),
            "110 random masks (RISE)": _rise(encoder, pixels, query),
        }
        results = results or [Result(f"{name}: {way}") for way in ways]
        _delete(encoder, pixels, query, float(score), ways, rng, results)
    return results


def _delete(
    encoder: Encoder,
    pixels: NDArray[np.uint8],
    query: NDArray[np.float32],
    score: float,
    ways: dict[str, NDArray[np.float32]],
    rng: np.random.Generator,
    results: Sequence[Result],
) -> None:
    """Put grey over the cells that each way marks, over random ones and over the central ones, and note the drops."""
    shape = next(iter(ways.values())).shape
    size = round(SHARE * np.prod(shape))
    orders = [np.argsort(-drops, axis=None) for drops in ways.values()]
    orders += [rng.permutation(int(np.prod(shape))) for _ in range(RANDOM_PARTS)]
    orders.append(np.argsort(_from_centre(shape), axis=None, kind="stable"))
    masks = [np.isin(np.arange(np.prod(shape)), order[:size]).reshape(shape) for order in orders]
    scores = encoder.embed([encoder.prepare(hidden(pixels, mask, GREY)) for mask in masks]) @ query
    for result, marked in zip(results, scores, strict=False):
        _note(result, score, np.array([marked, *scores[len(ways) : -1]]), float(scores[-1]))


def _mean_of_windows(
    drops: NDArray[np.float32], masks: NDArray[np.bool_], cells: NDArray[np.int64], sizes: Sequence[int]
) -> NDArray[np.float32]:
    """Spread each window's drop over its cells, take each cell's mean, and the mean of that over sizes."""
    means = [
        np.tensordot(drops[cells == size] / size, masks[cells == size], axes=1) / masks[cells == size].sum(axis=0)
        for size in sizes
    ]
    return np.asarray(np.mean(means, axis=0), np.float32)


def _rise(encoder: Encoder, pixels: NDArray[np.uint8], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Petsiuk et al., "RISE", BMVC 2018: a cell's worth is the mean score of the masks that let it be seen."""
    rng = np.random.default_rng(0)
    fill = method.blurred(pixels)
    seen = rng.random((110, 7, 7)) < 0.5
    scores = encoder.embed([encoder.prepare(hidden(pixels, ~mask, fill)) for mask in seen]) @ query
    worth = np.tensordot(scores - scores.mean(), seen, axes=1) / seen.sum(axis=0)
    return np.asarray(worth, np.float32)


def _query_words(name: str, space: JointSpace, hits: Sequence[tuple[str, NDArray[np.uint8]]]) -> Result:
    result, encoder, rng = Result(name), space.encoder("image"), np.random.default_rng(2)
    for caption, pixels in hits:
        vector = encoder.embed([encoder.prepare(pixels)])[0]
        started = time.perf_counter()
        asked = ExplainedQuery(space, [QueryPart(modality="text", item=caption)])
        drops = np.array([mark.drop for mark in asked.marks(vector)])
        result.seconds.append(time.perf_counter() - started)
        if len(drops) < 3:
            result.seconds.pop()
            continue
        texts = [_filled(caption, order) for order in _orders(drops, rng)]
        _note(result, float(asked.vector @ vector), space.encode("text", texts) @ vector)
    return result


def sounds(space: JointSpace, count: int, variants: bool) -> Iterator[Result]:
    """Captions and names of classes to sounds, short ones and long ones."""
    with (DATA / "urbansound" / "clips.csv").open(newline="") as file:
        clips = list(csv.DictReader(file))
    files = [DATA / "urbansound" / clip["path"] for clip in clips]
    gallery = space.encode("audio", files)
    names = sorted({clip["label"] for clip in clips})
    scores = space.encode("text", names) @ gallery.T
    hits = [
        (name, _sound(files[place]))
        for name, row in zip(names, scores, strict=True)
        for place in np.argsort(-row)[: -(-count // len(names))]
    ]
    captions, stamped = _stamps(".ogg")
    chosen = _sample(captions, count)
    best = (space.encode("text", chosen) @ space.encode("audio", stamped).T).argmax(axis=1)
    of_stamps = [(caption, _sound(stamped[place])) for caption, place in zip(chosen, best, strict=True)]
    kinds = {"city sounds": hits, "stamps": of_stamps, "a minute of city sounds": _minutes(clips, files, count)}
    for name, found in kinds.items():
        yield _sounds(f"{name}: text to sound", space, found)
        for sizes in ((1,), (1, 2, 4)) if variants and name != "a minute of city sounds" else ():
            usual, method.WINDOW_STRETCHES = method.WINDOW_STRETCHES, sizes
            yield _sounds(f"{name}: windows of {sizes}", space, found)
            method.WINDOW_STRETCHES = usual


def _minutes(clips: Sequence[dict[str, str]], files: Sequence[Path], count: int) -> list[tuple[str, Sound]]:
    """One clip of what is asked for among fourteen others, at a random place."""
    rng, made = np.random.default_rng(3), []
    for number in range(min(count, 40)):
        label = list(CITY_SOUNDS)[number % len(CITY_SOUNDS)]
        others = [place for place, clip in enumerate(clips) if clip["label"] not in CITY_SOUNDS]
        own = [place for place, clip in enumerate(clips) if clip["label"] == label]
        places = [*rng.choice(others, 14, replace=False), rng.choice(own)]
        parts = [_sound(files[place]) for place in rng.permutation(places)]
        made.append((CITY_SOUNDS[label], (np.concatenate([part for part, _ in parts]), parts[0][1])))
    return made


def _sounds(name: str, space: JointSpace, hits: Sequence[tuple[str, Sound]]) -> Result:
    result, encoder, rng = Result(name), space.encoder("audio"), np.random.default_rng(4)
    for text, (waveform, rate_hz) in hits:
        query = query_vectors(space, [[QueryPart(modality="text", item=text)]])[0]
        started = time.perf_counter()
        vector, marks = sound_drops(encoder, (waveform, rate_hz), query)
        spent = time.perf_counter() - started
        if len(marks) < 5:
            continue
        result.seconds.append(spent)
        stretch = np.minimum(np.arange(len(waveform)) * len(marks) // len(waveform), len(marks) - 1)
        orders = _orders(np.array([mark.drop for mark in marks]), rng)
        left = [(waveform[~np.isin(stretch, order)], rate_hz) for order in orders]
        scores = encoder.embed([encoder.prepare(sound) for sound in left]) @ query
        _note(result, float(vector @ query), scores)
    return result


def texts(space: JointSpace, count: int, variants: bool) -> Iterator[Result]:
    """Captions to captions of other photos, and sentences to film reviews."""
    del variants
    captions, _ = _photos()
    chosen = _sample(captions, count)
    scores = space.encode("text", chosen) @ space.encode("text", captions).T
    hits = []
    for caption, row in zip(chosen, scores, strict=True):
        place = captions.index(caption)
        row[place - place % 5 : place - place % 5 + 5] = -1  # the captions of the same photo
        hits.append((caption, captions[int(row.argmax())]))
    yield _texts("captions: text to text", space, hits)
    import gzip

    with gzip.open(DATA / "text" / "imdb_test.csv.gz", "rt", newline="") as file:
        reviews = [row["text"] for row, _ in zip(csv.DictReader(file), range(1000), strict=False)]
    asked = ["a haunted house", "a love story in a war", "the music and the songs", "a film for children", "bad acting"]
    asked += ["a detective solves a murder", "spaceships and aliens", "a funny dog", "car chases", "a boring film"]
    vectors = space.encode("text", reviews)
    rows = space.encode("text", asked) @ vectors.T
    hits = [
        (text, reviews[place])
        for text, row in zip(asked, rows, strict=True)
        for place in np.argsort(-row)[: -(-count // len(asked))]
    ]
    yield _texts("film reviews: text to text", space, hits)


def _texts(name: str, space: JointSpace, hits: Sequence[tuple[str, str]]) -> Result:
    result, encoder, rng = Result(name), space.encoder("text"), np.random.default_rng(5)
    for asked, text in hits:
        query = query_vectors(space, [[QueryPart(modality="text", item=asked)]])[0]
        started = time.perf_counter()
        vector, marks = text_drops(encoder, text, query)
        spent = time.perf_counter() - started
        if len(marks) < 3:
            continue
        result.seconds.append(spent)
        places = [(int(mark.start), int(mark.stop)) for mark in marks]
        orders = _orders(np.array([mark.drop for mark in marks]), rng)
        scores = space.encode("text", [_filled(text, order, places) for order in orders]) @ query
        _note(result, float(vector @ query), scores)
    return result


def _orders(drops: NDArray[Any], rng: np.random.Generator) -> list[NDArray[np.intp]]:
    """Return the places that are deleted: those of the largest drops, then random ones."""
    size = max(1, round(SHARE * len(drops)))
    return [np.argsort(-drops)[:size], *(rng.permutation(len(drops))[:size] for _ in range(RANDOM_PARTS))]


def _note(result: Result, score: float, scores: NDArray[np.float32], other: float | None = None) -> None:
    result.score.append(score)
    result.marked.append(score - float(scores[0]))
    result.random.append(score - float(np.mean(scores[1:])))
    if other is not None:
        result.other.append(score - other)


def _filled(text: str, order: NDArray[np.intp], places: Sequence[tuple[int, int]] | None = None) -> str:
    """Put the filler in place of some words."""
    for start, stop in sorted(((places or word_places(text))[place] for place in order.tolist()), reverse=True):
        text = text[:start] + FILLER + text[stop:]
    return text


def _from_centre(shape: tuple[int, ...]) -> NDArray[np.float64]:
    rows, columns = np.indices(shape)
    return np.asarray(np.hypot(rows - (shape[0] - 1) / 2, columns - (shape[1] - 1) / 2))


def _sample(items: Sequence[str], count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [items[place] for place in rng.permutation(len(items))[:count]]


def _stamps(suffix: str) -> tuple[list[str], list[Path]]:
    found = stamps(suffix)
    return sorted({stamp.caption for stamp in found}), [stamp.path for stamp in found]


def _photos() -> tuple[list[str], list[Path]]:
    """Captions and photos of the first 400 of Flickr8k's development split; five captions each, in order."""
    with (DATA / "flickr8k" / "captions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "dev"]
    kept = list(dict.fromkeys(row["path"] for row in rows))[:400]
    captions = [row["caption"] for path in kept for row in rows if row["path"] == path]
    return captions, [DATA / "flickr8k" / path for path in kept]


def _pixels(file: Path, encoder: Encoder) -> NDArray[np.uint8]:
    return shrunken(np.asarray(decode_image(read_file(file), side=encoder.side)), encoder.side)


def _sound(file: Path) -> Sound:
    return decode_audio(read_file(file))


if __name__ == "__main__":
    main()
