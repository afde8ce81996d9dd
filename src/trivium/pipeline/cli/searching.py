"""`trivium search`: hits told as lines, as JSON, and as a page that shows and plays them.

On a page pictures are shown, sounds and videos played from where they match; links are relative to the page.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from trivium.pipeline.cli.ends import Command
from trivium.pipeline.cli.options import UsageError, add_device, filter_of, open_collection, plain_of
from trivium.pipeline.cli.query_words import add_query, name_texts
from trivium.pipeline.cli.terminal import announce, excerpt_of, place_of, print_hits, say, say_bytes, say_paths
from trivium.pipeline.collection import Collection
from trivium.pipeline.escaping import Html, joined, markup, printable
from trivium.pipeline.explain.lines import explanation_json, lines_of
from trivium.pipeline.search.query import QueryPart, parse_part
from trivium.pipeline.search.retrieval import Hit
from trivium.pipeline.store.filters import Filter
from trivium.pipeline.tables.csv_text import csv_of, path_cells

if TYPE_CHECKING:
    from trivium.pipeline.explain.drops import Explanation

CSV_COLUMNS = (
    *("path", "path_bytes", "modality", "score", "relevance", "caption", "matched", "start", "stop", "metadata"),
)
PAGE_BEGINS = b"<!doctype html>"
# Nothing is loaded from elsewhere and no script runs, whatever a caption or a file name holds.
POLICY = "default-src 'none'; img-src 'self' file: data:; media-src 'self' file:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #888; }
body { font: 16px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .7rem; font-weight: 600; }
p.note { color: var(--quiet); margin: 0; } h2 img { height: 2.6rem; vertical-align: middle; background: #fff; }
h2 audio { height: 2rem; vertical-align: middle; }
ol { list-style: none; display: grid; grid-template-columns: repeat(auto-fill, minmax(12.5rem, 1fr)); gap: .9rem;
  margin: 0; padding: 0; }
li { border: 1px solid var(--line); border-radius: .6rem; overflow: hidden; display: flex; flex-direction: column; }
.media { height: 9.5rem; display: flex; align-items: center; justify-content: center; background: #fff; color: #333;
  padding: .5rem; box-sizing: border-box; overflow: hidden; }
.media img { max-width: 100%; max-height: 100%; } .media audio { width: 100%; }
.media video { max-width: 100%; max-height: 100%; }
.heat .own, .heat:hover .over { display: none; } .heat:hover .own { display: block; }
.media blockquote { margin: 0; font-style: italic; overflow: hidden; max-height: 100%; }
.about { padding: .5rem .7rem .6rem; font-size: .86rem; } .caption { margin: 0 0 .3rem; }
.why { margin: .3rem 0; color: var(--quiet); }
.about small { color: var(--quiet); overflow-wrap: anywhere; } .about b { font-variant-numeric: tabular-nums; }
"""
MAX_FACT = 100  # characters
FACTS = ("camera", "artist", "album", "people", "keywords")  # of the metadata, that a card shows beside the day
LIKELY = ' <span title="how likely it is what was asked">{relevance:.0%}</span>'


def search_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium search`."""
    parser.allow_abbrev = False
    parser.description = "A query part may have a weight: '2:beach', '-0.5:crowd'; a leading '-' means less of it."
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder")
    add_query(parser)
    parser.add_argument("--space", help="refuse the collection if it was made with another space")
    add_device(parser)


def search(options: argparse.Namespace) -> int:
    """Find items and show them."""
    with open_collection(options, space=options.space) as collection:
        answer(collection, options)
    return 0


def answer(collection: Collection, options: argparse.Namespace) -> None:
    """Answer one query, of a command line or of a line of the shell."""
    form = plain_of(options)
    if options.explain is not None and form not in (None, "json") and not options.html:
        raise UsageError(f"--{form} has no place for what --explain tells: give --json or --html")
    parts = [parse_part("text", text) for text in [*options.texts, *options.text]]
    parts += [parse_part("image", file) for file in options.image]
    parts += [parse_part("audio", file) for file in options.audio]
    filter = filter_of(options)
    (hits,) = collection.search_parts([parts], k=options.k, filter=filter, min_relevance=options.min_relevance)
    if not hits and options.min_relevance is None:
        _warn_of_keys(collection, filter)
    explained = _explained(collection, parts, hits, options) if options.explain is not None else None
    space = collection.space.space.name
    if options.html:
        note = f"{len(hits)} hits in {printable(str(options.collection))}, space {space}"
        _write_page(Path(options.html), parts, hits, explained or {}, note=note)
    if form in ("paths", "paths0"):
        say_paths((hit.path for hit in hits), end=b"\n" if form == "paths" else b"\0")
    elif form == "csv":
        say_bytes(csv_of([CSV_COLUMNS, *map(_csv_row, hits)]))
    elif form == "json":
        query = [{"modality": part.modality, "item": part.item, "weight": part.weight} for part in parts]
        fields = (
            "path",
            "modality",
            "score",
            "relevance",
            "caption",
            "matched",
            "start",
            "stop",
            "metadata",
            "is_missing",
        )
        found = [{field: getattr(hit, field) for field in fields} for hit in hits]
        if explained is not None:
            for told in found:
                why = explained.get(told["path"])
                told["explanation"] = None if why is None else explanation_json(why)
        say(json.dumps({"query": query, "space": space, "hits": found}))
    else:
        print_hits(hits, explained, min_relevance=options.min_relevance)


def _csv_row(hit: Hit) -> list[object]:
    metadata = json.dumps(hit.metadata, ensure_ascii=False) if hit.metadata else None
    return [*path_cells(os.fsencode(hit.path)), *(getattr(hit, name) for name in CSV_COLUMNS[2:-1]), metadata]


def _warn_of_keys(collection: Collection, filter: Filter) -> None:
    """Tell of metadata that no item has: a slip of the pen is the likeliest reason for no hits."""
    for key in sorted(filter.metadata_keys - collection.metadata_keys()):
        announce(f"no item has metadata '{key}'")


def _explained(
    collection: Collection, parts: list[QueryPart], hits: "list[Hit]", options: argparse.Namespace
) -> "dict[str, Explanation]":
    """Explain the first hits, by path, and write what is to be seen of it."""
    from trivium.pipeline.explain.plots import write_overlays

    found = collection.explain_parts(parts, hits[: options.explain_hits])
    return dict(zip((hit.path for hit in hits), write_overlays(found, hits, Path(options.explain)), strict=False))


def _write_page(
    target: Path, parts: list[QueryPart], hits: "list[Hit]", explained: "Mapping[str, Explanation]", *, note: str
) -> None:
    heading = query_html([(part.weight, part.modality, part.item) for part in parts], target=target)
    page = render_page("Trivium search", [(heading, hits)], target=target, note=note, explained=explained)
    from trivium.encoders.files.writing import write_file

    _require_page(target)
    write_file(target, page)
    announce(f"wrote {printable(str(target))}")


def _require_page(target: Path) -> None:
    """Refuse to put a page in the place of somebody's letter."""
    if target.is_file() and not target.is_symlink():
        with target.open("rb") as file:
            begins = file.read(len(PAGE_BEGINS))
        if begins and begins.lower() != PAGE_BEGINS:
            raise UsageError(f"--html {target}: there is a file that is no page: name another one")


def render_page(
    title: str,
    sections: Sequence[tuple[str, Sequence[Hit]]],
    *,
    target: Path,
    note: str = "",
    explained: "Mapping[str, Explanation] | None" = None,
) -> Html:
    """Return an HTML page.

    Args:
        title: Plain text.
        sections: Pairs of a query, as HTML made by `query_html` or as plain text, and its hits.
        target: The file that the page will be written to; media are linked relative to it.
        note: Plain text below the title.
        explained: Why, by the paths of some of the hits; a picture's overlay gives way to it under the pointer.
    """
    folder = target.absolute().parent
    return markup(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style></head><body>\n'
        '<h1>{title}</h1>\n<p class="note">{note}</p>\n{sections}</body></html>\n',
        title=title,
        policy=Html(POLICY),
        style=Html(STYLE),
        note=note,
        sections=joined(_section(heading, hits, folder, explained or {}) for heading, hits in sections),
    )


def query_html(parts: Sequence[tuple[float, str, str]], *, target: Path) -> Html:
    """Return a query as HTML: texts quoted, pictures and sounds embedded.

    Args:
        parts: (weight, modality, text or path) of each part.
        target: The file that the page will be written to.
    """
    folder = target.absolute().parent
    shown: list[Html] = []
    for weight, modality, item in parts:
        shown.append(
            markup(
                "{sign}{times}{what}",
                sign=" − " if weight < 0 else " + " if shown else "",
                times="" if abs(weight) == 1 else f"{abs(weight):g} × ",
                what=f"“{item}”" if modality == "text" else _player(modality, os.path.abspath(item), folder),
            )
        )
    return joined(shown)


def _section(heading: str, hits: Sequence[Hit], folder: Path, explained: "Mapping[str, Explanation]") -> Html:
    cards = joined(_card(hit, folder, explained.get(hit.path)) for hit in hits)
    shown = markup("<ol>\n{cards}</ol>\n", cards=cards) if hits else Html("<p>No hits.</p>\n")
    return markup("<h2>{heading}</h2>\n{hits}", heading=heading, hits=shown)


def _card(hit: Hit, folder: Path, explanation: "Explanation | None") -> Html:
    caption, excerpt = hit.caption or "", excerpt_of(hit)
    overlay = None if explanation is None or explanation.overlay is None else os.path.abspath(explanation.overlay)
    kind = "media heat" if overlay is not None and hit.modality == "image" else "media"
    if hit.modality == "text":
        media = markup("<blockquote>{words}</blockquote>", words=caption if excerpt is None else excerpt)
        caption = "" if excerpt is None else caption
    else:
        media = _player(hit.modality, hit.path, folder, seconds=hit.start, overlay=overlay)
    lines = [] if explanation is None else [markup("{line}", line=line) for line in lines_of(explanation)]
    likely = Html("") if hit.relevance is None else markup(LIKELY, relevance=hit.relevance)
    return markup(
        '<li><div class="{kind}">{media}</div><div class="about"><p class="caption">{caption}</p>{why}'
        "<b>{score:.3f}</b>{likely} {modality}{matched}<br>{facts}"
        '<small><a href="{link}">{name}</a>{missing}</small></div></li>\n',
        kind=kind,
        media=media,
        caption=caption,
        why=markup('<p class="why">{lines}</p>', lines=joined(lines, Html("<br>"))) if lines else Html(""),
        score=hit.score,
        likely=likely,
        modality=hit.modality,
        matched=" by its caption" if hit.matched == "caption" else f" {place_of(hit)}".rstrip(),
        link=_link(hit.path, folder),
        name=os.path.basename(hit.path),
        facts=markup("<small>{facts}</small><br>", facts=facts) if (facts := _facts(hit)) else Html(""),
        missing=" (missing: the file was gone when its folder was last indexed)" if hit.is_missing else "",
    )


def _facts(hit: Hit) -> str:
    """Say when, with what and by whom an item was made, and what and who is in it, as far as its metadata do."""
    day = str(hit.metadata.get("taken", ""))[: len("2024-05-01")]
    told = [day, *(hit.metadata.get(key) for key in FACTS)]
    words = [", ".join(fact) if isinstance(fact, list) else str(fact) for fact in told if fact]
    return " · ".join(word[:MAX_FACT] for word in words)


def _player(
    modality: str, path: str, folder: Path, *, seconds: float | None = None, overlay: str | None = None
) -> Html:
    link, name = _link(path, folder), os.path.basename(path)
    over = None if overlay is None else _link(overlay, folder)
    if modality == "image":
        picture = '<img {own}src="{link}" alt="{name}" loading="lazy">'
        if over is None:
            return markup(picture, own="", link=link, name=name)
        own = markup(picture, own=Html('class="own" '), link=link, name=name)
        return markup(
            '<img class="over" src="{over}" alt="what held up the score" loading="lazy">{own}', over=over, own=own
        )
    if seconds is not None:
        link += f"#t={seconds:.3f}"  # where it begins (W3C Media Fragments)
    if modality == "video":  # its metadata, so that it shows the picture at that time
        poster = Html("") if over is None else markup('poster="{over}" ', over=over)
        video = '<video {poster}controls preload="metadata" src="{link}" title="{name}"></video>'
        return markup(video, poster=poster, link=link, name=name)
    return markup('<audio controls preload="none" src="{link}" title="{name}"></audio>', link=link, name=name)


def _link(path: str, folder: Path) -> str:
    """Percent-encode the path's bytes; no byte of it can end the attribute or be taken for a scheme."""
    return "./" + quote(os.fsencode(os.path.relpath(path, folder)))


COMMANDS: Mapping[str, Command] = {"search": Command(search_options, search, words=name_texts)}
