"""The table of suffixes: what is missing is told by the name of what brings it."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.pipeline import suffixes
from trivium.pipeline.records import ITEM_KINDS
from trivium.pipeline.suffixes import NEEDED, SUFFIXES, kind_of_name, missing_extra, suffix_of, why_not, why_passed


def test_the_table() -> None:
    assert set(SUFFIXES.values()) == set(ITEM_KINDS)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)
    assert NEEDED.keys() < SUFFIXES.keys()
    assert {extra.name for extra in NEEDED.values()} == {"video", "heif", "raw", "documents"}
    assert kind_of_name("/a/b.JPE") == kind_of_name("b.jfif") == "image"
    assert kind_of_name("b.xmp") is kind_of_name("jpg") is None
    assert suffix_of("/a.b/C.Tar.GZ") == ".gz"


@given(st.text(alphabet="./aB", max_size=9))
def test_suffixes_are_as_python_has_them(name: str) -> None:
    assert suffix_of(name) == os.path.splitext(name)[1].lower()


@pytest.mark.parametrize(
    ("suffix", "module", "extra"),
    [
        *[(".m4a", "av", "video"), (".mts", "av", "video"), (".heic", "pillow_heif", "heif"), (".cr2", "rawpy", "raw")],
        *[(".pdf", "pypdfium2", "documents"), (".docx", "docx", "documents")],
    ],
)
def test_what_is_missing(suffix: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_extra(suffix) is None
    assert why_not(suffix) is None
    monkeypatch.setattr(suffixes, "is_installed", lambda name: name != module)
    assert why_passed(suffix) == f"needs trivium[{extra}]"
    assert why_not(suffix) == f"needs trivium[{extra}] (run pip install 'trivium[{extra}]')"
    assert missing_extra(".jpg") is None


def test_what_is_not_indexed() -> None:
    assert why_passed(".xmp") == "not a kind that is indexed"
    assert str(why_not(".xmp")).startswith("not a kind of file that is indexed (.jpg .jpeg")
