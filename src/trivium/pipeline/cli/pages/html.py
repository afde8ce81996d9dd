"""What all pages share: how they look, what they may load, and where they may be written.

A page holds its thumbnails itself, as far as `MAX_INSIDE_BYTES` goes; beyond, and where there is none, a picture is
loaded from its own file. Links to the originals are relative to the page.
"""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from trivium.encoders.files.writing import write_file
from trivium.pipeline.cli.options import UsageError
from trivium.pipeline.cli.terminal import announce
from trivium.pipeline.escaping import Html, markup, printable

MAX_INSIDE_BYTES = 64 << 20  # of thumbnails: some 8,000
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
details { margin-top: .2rem; } summary { cursor: pointer; }
.about small { color: var(--quiet); overflow-wrap: anywhere; } .about b { font-variant-numeric: tabular-nums; }
"""


def write_page(target: Path, page: Html) -> None:
    """Write a page, and say so.

    Raises:
        UsageError: If something else lies there.
    """
    _require_page(target)
    write_file(target, page)
    announce(f"wrote {printable(str(target))}")


def page_of(title: str, note: str, content: Html) -> Html:
    """Return a page.

    Args:
        title: Plain text.
        note: Plain text below it.
        content: What follows.
    """
    return markup(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style></head><body>\n'
        '<h1>{title}</h1>\n<p class="note">{note}</p>\n{content}</body></html>\n',
        title=title,
        policy=Html(POLICY),
        style=Html(STYLE),
        note=note,
        content=content,
    )


def inside(thumbnails: Mapping[str, bytes]) -> dict[str, str]:
    """Return addresses that hold thumbnails themselves, by the same keys, the first as far as they fit in a page."""
    addresses: dict[str, str] = {}
    left = MAX_INSIDE_BYTES
    for key, data in thumbnails.items():
        left -= len(data)
        if left >= 0:
            addresses[key] = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
    return addresses


def link_to(path: str, folder: Path) -> str:
    """Percent-encode the path's bytes; no byte of it can end the attribute or be taken for a scheme."""
    return "./" + quote(os.fsencode(os.path.relpath(path, folder)))


def _require_page(target: Path) -> None:
    """Refuse to put a page in the place of somebody's letter."""
    if target.is_file() and not target.is_symlink():
        with target.open("rb") as file:
            begins = file.read(len(PAGE_BEGINS))
        if begins and begins.lower() != PAGE_BEGINS:
            raise UsageError(f"--html {target}: there is a file that is no page: name another one")
