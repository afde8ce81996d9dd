"""Pages show what browsers cannot: small pictures are inside, of whatever the originals are."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from assets import ASSETS
from trivium.pipeline.cli.pages import html
from trivium.pipeline.cli.pages.hits import render_page
from trivium.pipeline.collection import Collection
from trivium.pipeline.search.retrieval import Hit

INSIDE = re.compile(r'src="data:image/webp;base64,([^"]+)"')


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Pictures that no browser shows, and one of many bytes."""
    folder = tmp_path / "scans"
    folder.mkdir()
    with Image.open(ASSETS / "strawberry.jpg") as image:
        photo = image.convert("RGB")
    photo.save(folder / "scan.tif")
    photo.resize((1200, 900)).save(folder / "large.bmp")
    heif = pytest.importorskip("pillow_heif", reason="comes with the extra 'heif'")
    heif.from_pillow(photo).save(folder / "phone.heic")
    return folder


def test_the_page_of_a_search_holds_its_pictures(
    tmp_path: Path, scans: Path, space: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trivium.pipeline.collection.load_space", lambda *_, **__: space)
    with Collection.open(tmp_path / "c", space=space) as collection:
        assert collection.add(scans).added == 3
    target = tmp_path / "page.html"
    status, _, _ = run("search", str(tmp_path / "c"), "--image", str(scans / "phone.heic"), "--html", str(target))
    assert status == 0
    page = target.read_text()
    shown = INSIDE.findall(page)
    assert len(shown) == 4  # the query's and three hits'
    for data in shown:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.format == "WEBP"
            assert max(image.size) <= 256
    assert not re.search(r'<img[^>]*src="\./', page)
    for name in ("scan.tif", "large.bmp", "phone.heic"):
        assert f'<a href="./scans/{name}">' in page


def test_what_does_not_fit_is_loaded_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "MAX_INSIDE_BYTES", 15)
    hits = [Hit(path=f"/m/{n}.png", modality="image", score=0.5, caption=None, matched="content") for n in range(2)]
    page = render_page(
        "t", [("q", hits)], target=tmp_path / "o.html", thumbnails={hit.path: b"0123456789" for hit in hits}
    )
    assert len(INSIDE.findall(page)) == 1
    assert len(re.findall(r'<img src="\.\.?/', page)) == 1


def test_copies_are_listed_and_cannot_break_out(tmp_path: Path) -> None:
    nasty = '/m/<script>alert("x")</script>.png'
    hit = Hit(path="/m/a.png", modality="image", score=0.5, caption=None, matched="content", copies=(nasty, "/m/b.png"))
    page = render_page("t", [("q", [hit])], target=tmp_path / "o.html")
    assert "<summary>and 2 copies</summary>" in page
    assert "<script" not in page
