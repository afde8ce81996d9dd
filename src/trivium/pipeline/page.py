"""Hits as a web page: pictures shown, sounds and videos played from where they match; links relative to the page."""

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from trivium.pipeline.explanation_report import lines_of
from trivium.pipeline.place import excerpt_of, place_of
from trivium.pipeline.retrieval import Hit

if TYPE_CHECKING:
    from trivium.pipeline.explanation import Explanation

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


def render_page(
    title: str,
    sections: Sequence[tuple[str, Sequence[Hit]]],
    *,
    target: Path,
    note: str = "",
    explained: "Mapping[str, Explanation] | None" = None,
) -> str:
    """Return an HTML page.

    Args:
        title: Plain text.
        sections: Pairs of a query, as HTML made by `query_html`, and its hits.
        target: The file that the page will be written to; media are linked relative to it.
        note: Plain text below the title.
        explained: Why, by the paths of some of the hits; a picture's overlay gives way to it under the pointer.
    """
    folder = target.absolute().parent
    parts = [_section(heading, hits, folder, explained or {}) for heading, hits in sections]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_escaped(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<style>{STYLE}</style></head><body>\n'
        f'<h1>{_escaped(title)}</h1>\n<p class="note">{_escaped(note)}</p>\n{"".join(parts)}</body></html>\n'
    )


def query_html(parts: Sequence[tuple[float, str, str]], *, target: Path) -> str:
    """Return a query as HTML: texts quoted, pictures and sounds embedded.

    Args:
        parts: (weight, modality, text or path) of each part.
        target: The file that the page will be written to.
    """
    folder = target.absolute().parent
    shown = ""
    for weight, modality, item in parts:
        sign = " − " if weight < 0 else " + " if shown else ""
        times = "" if abs(weight) == 1 else f"{abs(weight):g} × "
        what = f"“{_escaped(item)}”" if modality == "text" else _player(modality, os.path.abspath(item), folder)
        shown += sign + times + what
    return shown


def _section(heading: str, hits: Sequence[Hit], folder: Path, explained: "Mapping[str, Explanation]") -> str:
    cards = "".join(_card(hit, folder, explained.get(hit.path)) for hit in hits)
    return f"<h2>{heading}</h2>\n<ol>\n{cards}</ol>\n" if hits else f"<h2>{heading}</h2>\n<p>No hits.</p>\n"


def _card(hit: Hit, folder: Path, explanation: "Explanation | None") -> str:
    name = _escaped(os.path.basename(hit.path))
    caption, excerpt = _escaped(hit.caption or ""), excerpt_of(hit)
    if hit.modality == "text":
        media = f"<blockquote>{caption if excerpt is None else _escaped(excerpt)}</blockquote>"
        caption = "" if excerpt is None else caption
    else:
        media = _player(hit.modality, hit.path, folder, seconds=hit.start)
    overlay = None if explanation is None or explanation.overlay is None else os.path.abspath(explanation.overlay)
    kind = "media"
    if overlay is not None and hit.modality == "image":
        kind, media = "media heat", media.replace("<img ", '<img class="own" ', 1)
        media = f'<img class="over" src="{_link(overlay, folder)}" alt="what held up the score" loading="lazy">{media}'
    elif overlay is not None:
        media = media.replace("<video ", f'<video poster="{_link(overlay, folder)}" ', 1)
    lines = [] if explanation is None else lines_of(explanation)
    why = f'<p class="why">{"<br>".join(map(_escaped, lines))}</p>' if lines else ""
    likely = (
        "" if hit.relevance is None else f' <span title="how likely it is what was asked">{hit.relevance:.0%}</span>'
    )
    matched = " by its caption" if hit.matched == "caption" else f" {place_of(hit)}".rstrip()
    return (
        f'<li><div class="{kind}">{media}</div><div class="about"><p class="caption">{caption}</p>{why}'
        f"<b>{hit.score:.3f}</b>{likely} {hit.modality}{matched}<br>"
        f'<small><a href="{_link(hit.path, folder)}">{name}</a></small></div></li>\n'
    )


def _player(modality: str, path: str, folder: Path, *, seconds: float | None = None) -> str:
    link, name = _link(path, folder), _escaped(os.path.basename(path))
    if modality == "image":
        return f'<img src="{link}" alt="{name}" loading="lazy">'
    if seconds is not None:
        link += f"#t={seconds:.3f}"  # where it begins (W3C Media Fragments)
    if modality == "video":  # its metadata, so that it shows the picture at that time
        return f'<video controls preload="metadata" src="{link}" title="{name}"></video>'
    return f'<audio controls preload="none" src="{link}" title="{name}"></audio>'


def _link(path: str, folder: Path) -> str:
    """Percent-encode the path's bytes; no byte of it can end the attribute or be taken for a scheme."""
    return "./" + quote(os.fsencode(os.path.relpath(path, folder)))


def _escaped(text: str) -> str:
    return html.escape(printable(text))


def printable(text: str) -> str:
    """Make any file name or caption safe to show: one line, control characters and broken bytes escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
