"""The page of hits: nothing in a name or caption can break out of it, links work from where it lies."""

import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from PIL import Image

from trivium.pipeline.cli.pages.hits import query_html, render_page
from trivium.pipeline.escaping import printable
from trivium.pipeline.explain.drops import Explanation, Mark
from trivium.pipeline.ingest.scanning import fingerprint
from trivium.pipeline.search.retrieval import Hit

NASTY = '<script>alert("x")</script>\'"&\n\x1b[31m'


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def parse(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page)
    return parser.tags


def hit(path: str, **fields) -> Hit:
    known: dict[str, Any] = {"path": path, "modality": "image", "score": 0.5, "caption": None, "matched": "content"}
    return Hit(**(known | fields))


def test_nothing_breaks_out(tmp_path: Path) -> None:
    target = tmp_path / "out.html"
    hits = [hit(f"/m/{NASTY}.png", caption=NASTY), hit("/m/a.txt", modality="text", caption=NASTY)]
    heading = query_html([(1.0, "text", NASTY), (2.0, "image", f"/m/{NASTY}.png")], target=target)
    page = render_page(NASTY, [(heading, hits)], target=target, note=NASTY)
    tags = parse(page)
    assert not [tag for tag, _ in tags if tag == "script"]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert "\x1b" not in page


def test_how_likely_a_hit_is_relevant(tmp_path: Path) -> None:
    hits = [hit("/m/a.png", relevance=0.554), hit("/m/b.png")]
    page = render_page("t", [("q", hits)], target=tmp_path / "o.html")
    assert page.count(">55%</span>") == 1
    assert page.count("<span") == 1  # nothing is said where the space cannot tell


@pytest.mark.parametrize("name", ["a b.png", "é.png", "100%.png", "#?.png", "two\nlines.png", "javascript:x.png"])
def test_links_lead_to_the_file_from_where_the_page_lies(tmp_path: Path, name: str) -> None:
    file = tmp_path / "media" / name
    target = tmp_path / "pages" / "out.html"
    page = render_page("t", [("q", [hit(str(file))])], target=target)
    (source,) = [attributes["src"] for tag, attributes in parse(page) if tag == "img"]
    assert source is not None
    assert source.startswith("./")
    found = os.path.normpath(os.path.join(os.fsencode(target.parent), unquote_to_bytes(source)))
    assert found == os.fsencode(file)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    page = render_page("t", [("q", [hit(path)])], target=tmp_path / "out.html")
    assert "caf%E9.jpg" in page
    page.encode("utf-8")  # no lone surrogates


def test_sounds_get_a_player_and_texts_a_quote(tmp_path: Path) -> None:
    hits = [hit("/m/a.ogg", modality="audio"), hit("/m/a.txt", modality="text", caption="words")]
    tags = [tag for tag, _ in parse(render_page("t", [("q", hits)], target=tmp_path / "o.html"))]
    assert tags.count("audio") == 1
    assert tags.count("blockquote") == 1


@pytest.mark.parametrize(
    ("modality", "fields", "tag", "end"),
    [
        ("audio", {"matched": "window", "start": 83.0, "stop": 88.0}, "audio", "/a%20b.x#t=83.000"),
        ("audio", {}, "audio", "/a%20b.x"),
        ("video", {"matched": "frame", "start": 3723.04}, "video", "/a%20b.x#t=3723.040"),
        ("video", {"matched": "window", "start": 0.0, "stop": 5.0}, "video", "/a%20b.x#t=0.000"),
        ("video", {}, "video", "/a%20b.x"),
    ],
)
def test_players_begin_where_it_matches(tmp_path: Path, modality: str, fields: Any, tag: str, end: str) -> None:
    page = render_page("t", [("q", [hit("/m/a b.x", modality=modality, **fields)])], target=tmp_path / "o.html")
    ((_, attributes),) = [found for found in parse(page) if found[0] == tag]
    assert (attributes["src"] or "").endswith(end)
    assert "controls" in attributes
    assert ("at 1:02:03" in page) == (fields.get("start") == 3723.04)
    assert "media-src 'self' file:" in page  # videos are media too


def test_a_hash_in_a_name_does_not_end_the_link(tmp_path: Path) -> None:
    page = render_page(
        "t", [("q", [hit("/m/#1.mp4", modality="video", matched="frame", start=2.0)])], target=tmp_path / "o"
    )
    (source,) = [attributes["src"] for tag, attributes in parse(page) if tag == "video"]
    assert (source or "").endswith("/m/%231.mp4#t=2.000")


def test_passages_are_quoted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first line\n" + "<b>words</b> & more of them " * 30)
    fields = {"modality": "text", "caption": "first line", "matched": "passage", "start": 11.0, "stop": 300.0}
    known = fingerprint(os.lstat(tmp_path / "a.txt"))
    page = render_page("t", [("q", [hit(str(tmp_path / "a.txt"), fingerprint=known, **fields)])], target=tmp_path / "o")
    assert "<blockquote>… &lt;b&gt;words&lt;/b&gt; &amp; more" in page
    assert '<p class="caption">first line</p>' in page
    page = render_page("t", [("q", [hit(str(tmp_path / "a.txt"), fingerprint="old", **fields)])], target=tmp_path / "o")
    assert "<blockquote>first line</blockquote>" in page
    assert "text characters 11 to 300" in page


def test_explanations_cannot_break_out(tmp_path: Path) -> None:
    mark = Mark(start=0, stop=5, drop=0.5, text=NASTY)
    explained = {
        "/m/a.txt": Explanation(words=(mark,)),
        "/m/b.png": Explanation(reason=NASTY),
        "/m/c.mp4": Explanation(overlay=f"{tmp_path}/{NASTY}.png"),
    }
    hits = [hit("/m/a.txt", modality="text"), hit("/m/b.png"), hit("/m/c.mp4", modality="video", matched="frame")]
    page = render_page("t", [("q", hits)], target=tmp_path / "o.html", explained=explained)
    tags = parse(page)
    assert not [tag for tag, _ in tags if tag == "script"]
    assert "\x1b" not in page
    assert page.count('<p class="why">') == 2
    (poster,) = [attributes["poster"] for tag, attributes in tags if tag == "video"]
    assert unquote_to_bytes(poster or "") == os.fsencode(f"./{NASTY}.png")


def test_a_card_says_when_and_with_what_it_was_made(tmp_path: Path) -> None:
    metadata = {"taken": "2024-05-01T10:11:12", "camera": "Tamron <b>", "people": ["Ann", "Bo"], "iso": 100, "width": 9}
    page = render_page("t", [("q", [hit("/m/a.png", metadata=metadata), hit("/m/b.png")])], target=tmp_path / "p.html")
    assert page.count("<small>2024-05-01 · Tamron &lt;b&gt; · Ann, Bo</small>") == 1
    assert page.count("<small>") == 3  # of the other its link alone


def test_no_hits(tmp_path: Path) -> None:
    assert "No hits" in render_page("t", [("q", [])], target=tmp_path / "o.html")


@pytest.mark.parametrize(
    ("text", "shown"), [("a\nb", "a\\nb"), ("\x1b[0m", "\\x1b[0m"), ("é", "é"), ("\udce9", "\\udce9")]
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium here (Debian package chromium)")
def test_a_real_browser_shows_the_picture(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    Image.new("RGB", (200, 120), (255, 0, 0)).save(tmp_path / "media" / "réd #1.png")
    target = tmp_path / "out.html"
    target.write_text(render_page("t", [("q", [hit(str(tmp_path / "media" / "réd #1.png"))])], target=target), "utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--no-first-run", "--disable-component-update", "--disable-sync", "--disable-quic"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=800,600"]
    command += [f"--screenshot={tmp_path / 'shot.png'}", target.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    colours = Image.open(tmp_path / "shot.png").convert("RGB").getcolors(1 << 20) or []
    assert sum(count for count, colour in colours if colour == (255, 0, 0)) > 5000
