"""The main job on a real collection: fetch, index, search in all directions, show a page.

The collection is Tux Paint's stamps (Debian package tuxpaint-stamps-default, GPL-2): drawings and photos, each with
a caption beside it, many with a sound. It is fetched by apt with state of our own, so neither root nor an earlier
`apt-get update` is needed, and unpacked without installing anything.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from debian import FetchError, download, unpack
from trivium.encoders.base import Modality
from trivium.pipeline.cli.collecting import index_with_progress
from trivium.pipeline.cli.pages.hits import query_html, render_page
from trivium.pipeline.cli.terminal import print_hits
from trivium.pipeline.collection import Collection
from trivium.pipeline.escaping import markup
from trivium.pipeline.search.query import QueryPart
from trivium.pipeline.store.filters import Filter

PACKAGE = "tuxpaint-stamps-default"
STAMPS = "usr/share/tuxpaint/stamps"
OUTPUT = Path("demo-output")
# (query, only): each part is (weight, modality, text or file relative to the stamps).
QUERIES: list[tuple[list[tuple[float, Modality, str]], Modality | None]] = [
    ([(1, "text", "something to eat")], "image"),
    ([(1, "image", "vehicles/garbagetruck.png")], "image"),
    ([(1, "text", "a bird singing")], "audio"),
    ([(1, "text", "animal"), (-1, "text", "bird")], "image"),
    ([(1, "image", "animals/mammals/dogs/dog.png")], "audio"),
    ([(1, "audio", "animals/birds/owl.ogg")], "image"),
    ([(1, "text", "making music")], None),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, help="a folder of your own instead of the stamps")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"where everything goes (default: {OUTPUT})")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}

    started = time.perf_counter()
    media = options.media or fetch_stamps(options.output)
    seconds["fetch media"] = time.perf_counter() - started

    folder = options.output / ("collection" if options.media is None else "own-collection")
    with Collection.open(folder, announce=print) as collection:
        started = time.perf_counter()
        for modality in collection.space.modalities:  # fetches the weights on first use
            collection.space.encoder(modality)
        seconds["fetch and load weights"] = time.perf_counter() - started

        started = time.perf_counter()
        summary = index_with_progress(collection, [media])
        seconds["index"] = time.perf_counter() - started

        started = time.perf_counter()
        page = options.output / "demo.html"
        sections = []
        for query, only in present_queries(media):
            parts = [QueryPart(modality=modality, item=item, weight=weight) for weight, modality, item in query]
            (hits,) = collection.search_parts([parts], k=5, filter=Filter(only=only))
            told = " + ".join(f"{'' if w == 1 else f'{w:g}:'}{Path(item).name}" for w, _, item in query)
            print(f"\n{told}{f'  (only {only})' if only else ''}")
            print_hits(hits[:3])
            heading = markup(
                "{query}{only}",
                query=query_html(query, target=page),
                only=markup(" <small>only {only}</small>", only=only) if only else "",
            )
            sections.append((heading, hits))
        seconds["query"] = time.perf_counter() - started
        note = f"{len(collection):,} items: pictures, sounds and texts in one space, {collection.space.space.name}"
        page.write_text(render_page("Trivium: one space", sections, target=page, note=note), encoding="utf-8")

    (options.output / "timings.json").write_text(json.dumps({"seconds": seconds, "vectors": summary.encoded}, indent=1))
    print("\n" + ", ".join(f"{stage} {spent:.1f} s" for stage, spent in seconds.items()))
    print(f"The page: {page.resolve()}")
    print(f'More: .venv/bin/trivium search {folder} "a dog barking"')
    return 0


def present_queries(media: Path) -> list[tuple[list[tuple[float, Modality, str]], Modality | None]]:
    """Return the queries whose files exist, with whole paths; the text queries work on any media."""
    found = []
    for query, only in QUERIES:
        whole = [(w, m, item if m == "text" else str(media / item)) for w, m, item in query]
        if all(m == "text" or Path(item).is_file() for _, m, item in whole):
            found.append((whole, only))
    return found


def fetch_stamps(output: Path) -> Path:
    """Download and unpack the stamps, once; the spoken descriptions (*_desc*.ogg, *.wav) are left out."""
    stamps = output / "stamps"
    if stamps.is_dir():
        return stamps
    print(f"fetching {PACKAGE} (160 MB, once)", flush=True)
    fetched = output / "fetched"
    try:
        package = download([PACKAGE], fetched)[PACKAGE]
        unpack(package, fetched, wanted=lambda name: name.startswith(f"{STAMPS}/") and "_desc" not in name)
    except FetchError as error:
        sys.exit(f"{error}. Use a folder of your own: make demo MEDIA=~/Pictures")
    (fetched / STAMPS).rename(stamps)
    shutil.rmtree(fetched)
    return stamps


if __name__ == "__main__":
    sys.exit(main())
