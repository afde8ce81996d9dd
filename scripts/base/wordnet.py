"""WordNet's own database files (wndb(5WN)): nouns with their synonyms, glosses and what they are kinds of."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "wordnet-base"
LICENCE = "WordNet (permissive, like MIT)"
ROOT = "usr/share/wordnet"
# The lexicographer files (lexnames(5WN)) of things that one can see or hear.
CONCRETE = {
    4: "act",
    5: "animal",
    6: "artifact",
    8: "body",
    10: "communication",
    11: "event",
    13: "food",
    17: "object",
    18: "person",
    19: "phenomenon",
    20: "plant",
    27: "substance",
}
HYPERNYMS = ("@", "@i")
PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
# Above these, everything is a "physical entity", which says nothing.
MAX_HYPERNYMS = 6
COLUMNS = ("synset", "kind", "count", "lemmas", "gloss", "hypernyms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """One meaning: `lemmas` are its names, the most usual first."""

    offset: str  # eight digits; with an "n" before it, an ImageNet class
    file: int  # lexicographer file
    lemmas: tuple[str, ...]
    senses: tuple[str, ...]  # the same, each as a sense key (senseidx(5WN))
    gloss: str
    hypernyms: tuple[str, ...]  # offsets


def read_nouns(folder: Path) -> dict[str, Noun]:
    """Read every noun by its offset."""
    nouns = {}
    for line in (folder / "data.noun").read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):  # the licence
            continue
        data, _, gloss = line.partition(" | ")
        words = data.split()
        count = int(words[3], 16)
        names = words[4 : 4 + 2 * count : 2]
        numbers = words[5 : 5 + 2 * count : 2]  # which of the lexicographer file's senses of that name
        senses = (
            f"{name.lower()}%1:{words[1]}:{int(number, 16):02}::" for name, number in zip(names, numbers, strict=True)
        )
        pointers = words[4 + 2 * count :]
        above = tuple(
            pointers[place + 1]
            for place in range(1, 1 + 4 * int(pointers[0]), 4)
            if pointers[place] in HYPERNYMS and pointers[place + 2] == "n"
        )
        # The examples of use, in quotes, come after the definition.
        definition = gloss.split('; "')[0].strip()
        nouns[words[0]] = Noun(
            offset=words[0],
            file=int(words[1]),
            lemmas=tuple(name.replace("_", " ") for name in names),
            senses=tuple(senses),
            gloss=definition,
            hypernyms=above,
        )
    return nouns


def read_counts(folder: Path) -> dict[str, int]:
    """Return how often each sense was met in texts that people tagged, by its key; those never met are not in it."""
    lines = (folder / "cntlist.rev").read_text(encoding="utf-8").splitlines()
    return {key: int(count) for key, _, count in (line.split() for line in lines)}


def read_lexicon(folder: Path) -> set[str]:
    """Return every word and phrase that WordNet has, lower case."""
    return {
        line.split(" ", 1)[0].replace("_", " ")
        for part in PARTS_OF_SPEECH
        for line in (folder / f"index.{part}").read_text(encoding="utf-8").splitlines()
        if not line.startswith(" ")
    }


def chain_of(noun: Noun, nouns: dict[str, Noun]) -> list[str]:
    """Return what a noun is a kind of, nearest first, each by its most usual name."""
    chain: list[str] = []
    while noun.hypernyms and len(chain) < MAX_HYPERNYMS:
        noun = nouns[noun.hypernyms[0]]
        chain.append(noun.lemmas[0])
    return chain


def imagenet_texts(nouns: dict[str, Noun], counts: dict[str, int], labels: Path) -> Iterator[dict[str, str]]:
    """Yield a row for each class of ImageNet, whose names are WordNet's offsets."""
    for wnid in json.loads(labels.read_text(encoding="utf-8"))["phrases"]:
        noun = nouns[wnid.removeprefix("n")]
        yield _row(noun, nouns, sum(counts.get(sense, 0) for sense in noun.senses))


def everyday_texts(nouns: dict[str, Noun], counts: dict[str, int]) -> Iterator[dict[str, str]]:
    """Yield a row for each noun of a thing that one can see or hear; `count` tells how everyday it is.

    Proper names are left out.
    """
    for noun in nouns.values():
        if noun.file in CONCRETE and noun.lemmas[0].islower():
            yield _row(noun, nouns, sum(counts.get(sense, 0) for sense in noun.senses))


def write_texts(path: Path, rows: Iterable[dict[str, str]]) -> int:
    """Write texts as a CSV file; several names or kinds are parted by "; ". Returns how many rows there are."""
    written = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow(row)
            written += 1
    return written


def _row(noun: Noun, nouns: dict[str, Noun], count: int) -> dict[str, str]:
    return {
        "synset": f"n{noun.offset}",
        "kind": CONCRETE.get(noun.file, "other"),
        "count": str(count),
        "lemmas": "; ".join(noun.lemmas),
        "gloss": noun.gloss,
        "hypernyms": "; ".join(chain_of(noun, nouns)),
    }
