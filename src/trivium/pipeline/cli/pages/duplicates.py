"""The page of duplicates: each group with its pictures, sizes and links."""

import os
from collections.abc import Mapping
from pathlib import Path

from trivium.pipeline.cli.pages.html import inside, link_to, page_of
from trivium.pipeline.cli.terminal import duplicates_told, freed_told
from trivium.pipeline.escaping import Html, joined, markup
from trivium.pipeline.upkeep.duplicates import DuplicateFile, DuplicateGroup, Duplicates


def render_duplicates(found: Duplicates, *, target: Path, thumbnails: Mapping[str, bytes]) -> Html:
    """Return a page.

    Args:
        found: The groups.
        target: The file that it will be written to; files are linked relative to it.
        thumbnails: WebP files by path.
    """
    folder, shown = target.absolute().parent, inside(thumbnails)
    return page_of(
        "Trivium duplicates", freed_told(found), joined(_section(group, folder, shown) for group in found.groups)
    )


def _section(group: DuplicateGroup, folder: Path, shown: Mapping[str, str]) -> Html:
    cards = joined(_card(file, folder, shown.get(file.path)) for file in group.files)
    return markup("<h2>{told}</h2>\n<ol>\n{cards}</ol>\n", told=duplicates_told(group), cards=cards)


def _card(file: DuplicateFile, folder: Path, thumbnail: str | None) -> Html:
    picture = Html("")
    if thumbnail is not None:
        picture = markup(
            '<div class="media"><img src="{src}" alt="{name}"></div>', src=thumbnail, name=os.path.basename(file.path)
        )
    return markup(
        '<li>{picture}<div class="about"><b>{size}</b><br><small><a href="{link}">{path}</a></small></div></li>\n',
        picture=picture,
        size="missing" if file.size_bytes is None else f"{file.size_bytes:,} bytes",
        link=link_to(file.path, folder),
        path=file.path,
    )
