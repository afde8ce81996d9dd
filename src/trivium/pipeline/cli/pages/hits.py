"""The page of a search: pictures are shown, sounds and videos played from where they match."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trivium.pipeline.cli.pages.html import inside, link_to, page_of
from trivium.pipeline.cli.terminal import copies_told, excerpt_of, place_of
from trivium.pipeline.escaping import Html, joined, markup
from trivium.pipeline.explain.lines import lines_of
from trivium.pipeline.search.retrieval import Hit

if TYPE_CHECKING:
    from trivium.pipeline.explain.drops import Explanation

MAX_FACT = 100  # characters
FACTS = ("camera", "artist", "album", "people", "keywords")  # of the metadata, that a card shows beside the day
LIKELY = ' <span title="how likely it is what was asked">{relevance:.0%}</span>'


def render_page(
    title: str,
    sections: Sequence[tuple[str, Sequence[Hit]]],
    *,
    target: Path,
    note: str = "",
    explained: "Mapping[str, Explanation] | None" = None,
    thumbnails: Mapping[str, bytes] | None = None,
) -> Html:
    """Return an HTML page.

    Args:
        title: Plain text.
        sections: Pairs of a query, as HTML made by `query_html` or as plain text, and its hits.
        target: The file that the page will be written to; media are linked relative to it.
        note: Plain text below the title.
        explained: Why, by the paths of some of the hits; a picture's overlay gives way to it under the pointer.
        thumbnails: WebP files by the paths of hits, and of the query's files.
    """
    folder = target.absolute().parent
    shown = inside(thumbnails or {})
    content = joined(_section(heading, hits, folder, explained or {}, shown) for heading, hits in sections)
    return page_of(title, note, content)


def query_html(
    parts: Sequence[tuple[float, str, str]], *, target: Path, thumbnails: Mapping[str, bytes] | None = None
) -> Html:
    """Return a query as HTML: texts quoted, pictures and sounds embedded.

    Args:
        parts: (weight, modality, text or path) of each part.
        target: The file that the page will be written to.
        thumbnails: WebP files by the paths of pictures.
    """
    folder = target.absolute().parent
    addresses = inside(thumbnails or {})
    shown: list[Html] = []
    for weight, modality, item in parts:
        shown.append(
            markup(
                "{sign}{times}{what}",
                sign=" − " if weight < 0 else " + " if shown else "",
                times="" if abs(weight) == 1 else f"{abs(weight):g} × ",
                what=f"“{item}”"
                if modality == "text"
                else _player(modality, os.path.abspath(item), folder, thumbnail=addresses.get(item)),
            )
        )
    return joined(shown)


def _section(
    heading: str,
    hits: Sequence[Hit],
    folder: Path,
    explained: "Mapping[str, Explanation]",
    shown: Mapping[str, str],
) -> Html:
    cards = joined(_card(hit, folder, explained.get(hit.path), shown.get(hit.path)) for hit in hits)
    listed = markup("<ol>\n{cards}</ol>\n", cards=cards) if hits else Html("<p>No hits.</p>\n")
    return markup("<h2>{heading}</h2>\n{hits}", heading=heading, hits=listed)


def _card(hit: Hit, folder: Path, explanation: "Explanation | None", thumbnail: str | None) -> Html:
    caption, excerpt = hit.caption or "", excerpt_of(hit)
    overlay = None if explanation is None or explanation.overlay is None else os.path.abspath(explanation.overlay)
    kind = "media heat" if overlay is not None and hit.modality == "image" else "media"
    if hit.modality == "text":
        media = markup("<blockquote>{words}</blockquote>", words=caption if excerpt is None else excerpt)
        caption = "" if excerpt is None else caption
    else:
        media = _player(hit.modality, hit.path, folder, seconds=hit.start, overlay=overlay, thumbnail=thumbnail)
    lines = [] if explanation is None else [markup("{line}", line=line) for line in lines_of(explanation)]
    likely = Html("") if hit.relevance is None else markup(LIKELY, relevance=hit.relevance)
    return markup(
        '<li><div class="{kind}">{media}</div><div class="about"><p class="caption">{caption}</p>{why}'
        "<b>{score:.3f}</b>{likely} {modality}{matched}<br>{facts}"
        '<small><a href="{link}">{name}</a>{missing}{copies}</small></div></li>\n',
        kind=kind,
        media=media,
        caption=caption,
        why=markup('<p class="why">{lines}</p>', lines=joined(lines, Html("<br>"))) if lines else Html(""),
        score=hit.score,
        likely=likely,
        modality=hit.modality,
        matched=" by its caption" if hit.matched == "caption" else f" {place_of(hit)}".rstrip(),
        link=link_to(hit.path, folder),
        name=os.path.basename(hit.path),
        copies=_copies(hit, folder),
        facts=markup("<small>{facts}</small><br>", facts=facts) if (facts := _facts(hit)) else Html(""),
        missing=" (missing: the file was gone when its folder was last indexed)" if hit.is_missing else "",
    )


def _facts(hit: Hit) -> str:
    """Say when, with what and by whom an item was made, and what and who is in it, as far as its metadata do."""
    day = str(hit.metadata.get("taken", ""))[: len("2024-05-01")]
    told = [day, *(hit.metadata.get(key) for key in FACTS)]
    words = [", ".join(fact) if isinstance(fact, list) else str(fact) for fact in told if fact]
    return " · ".join(word[:MAX_FACT] for word in words)


def _copies(hit: Hit, folder: Path) -> Html:
    if not hit.copies:
        return Html("")
    links = [markup('<a href="{link}">{path}</a>', link=link_to(path, folder), path=path) for path in hit.copies]
    return markup(
        "<details><summary>{told}</summary>{links}</details>",
        told=copies_told(hit),
        links=joined(links, Html("<br>")),
    )


def _player(
    modality: str,
    path: str,
    folder: Path,
    *,
    seconds: float | None = None,
    overlay: str | None = None,
    thumbnail: str | None = None,
) -> Html:
    link, name = link_to(path, folder), os.path.basename(path)
    over = None if overlay is None else link_to(overlay, folder)
    if modality == "image":
        picture = '<img {own}src="{link}" alt="{name}" loading="lazy">'
        link = thumbnail or link
        if over is None:
            return markup(picture, own="", link=link, name=name)
        own = markup(picture, own=Html('class="own" '), link=link, name=name)
        return markup(
            '<img class="over" src="{over}" alt="what held up the score" loading="lazy">{own}', over=over, own=own
        )
    if seconds is not None:
        link += f"#t={seconds:.3f}"  # where it begins (W3C Media Fragments)
    if modality == "video":  # its metadata, so that it shows the picture at that time
        over = over or thumbnail
        poster = Html("") if over is None else markup('poster="{over}" ', over=over)
        video = '<video {poster}controls preload="metadata" src="{link}" title="{name}"></video>'
        return markup(video, poster=poster, link=link, name=name)
    return markup('<audio controls preload="none" src="{link}" title="{name}"></audio>', link=link, name=name)
