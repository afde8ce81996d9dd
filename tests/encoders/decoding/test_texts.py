"""Text files of every age: by byte order mark, as UTF-8, as Windows-1252; binary files are refused."""

import codecs
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.encoders import DecodeError
from trivium.encoders.decoding import texts as text_decoding
from trivium.encoders.decoding.texts import MAX_LINE_CHARACTERS, decode_text, first_line

TEXT = "Grüße aus Köln – 12 €, 日本"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode("utf-8"),
        codecs.BOM_UTF8 + TEXT.encode("utf-8"),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    ],
    ids=["utf-8", "utf-8 with mark", "utf-16 little", "utf-16 big"],
)
def test_unicode(data: bytes) -> None:
    assert decode_text(data) == TEXT


def test_windows_1252() -> None:
    assert decode_text("Grüße – 12 €".encode("cp1252")) == "Grüße – 12 €"
    # 0x81 has no meaning in Windows-1252.
    assert decode_text(b"caf\xe9 \x81") == "café �"


def test_damaged_utf16_is_read_as_far_as_it_goes() -> None:
    assert decode_text(codecs.BOM_UTF16_LE + "ab".encode("utf-16-le") + b"\x00\xd8") == "ab�"
    assert decode_text(codecs.BOM_UTF16_LE + "ab".encode("utf-16-le") + b"c") == "ab�"


@pytest.mark.parametrize(
    "data",
    [b"PK\x03\x04\x00\x00", TEXT.encode("utf-16-le"), codecs.BOM_UTF32_LE + "ab".encode("utf-32-le"), b"\x00"],
    ids=["zip", "utf-16 without mark", "utf-32", "one NUL"],
)
def test_nul_means_binary(data: bytes) -> None:
    with pytest.raises(DecodeError, match="not a text: it holds NUL characters"):
        decode_text(data)


@pytest.mark.parametrize("data", [b"", b" \r\n\t", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, "\u3000".encode()], ids=ascii)
def test_blank(data: bytes) -> None:
    with pytest.raises(DecodeError, match="the text is empty"):
        decode_text(data)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# Shopping\nmilk", "Shopping"),
        ("\n\n  second \r\nthird", "second"),
        ("##\n###  \nreal", "real"),
        ("C# in depth", "C# in depth"),
        ("", None),
        (" \n#\n", None),
    ],
)
def test_first_line(text: str, line: str | None) -> None:
    assert first_line(text) == line


def test_first_line_is_cut() -> None:
    assert first_line("x" * (MAX_LINE_CHARACTERS + 5)) == "x" * MAX_LINE_CHARACTERS


def whole(data: bytes) -> str:
    """As it was before files were decoded piece by piece."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")),
        st.text(max_size=40).map(lambda text: codecs.BOM_UTF8 + text.encode("utf-8", "replace")),
        st.text(max_size=40).map(lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le", "replace")),
    ),
    st.integers(1, 9),
    st.integers(1, 30),
)
def test_pieces_make_the_whole(data: bytes, piece: int, most: int) -> None:
    expected = whole(data)
    with mock.patch.object(text_decoding, "PIECE_BYTES", piece):
        if "\0" in expected or not expected.strip():
            for limit in (None, most):
                with pytest.raises(DecodeError, match=r"the text is empty|NUL"):
                    decode_text(data, most=limit)
        else:
            assert decode_text(data) == expected
            assert decode_text(data, most=most) == expected[:most]


@given(st.text(st.sampled_from("ab# \n\r\v\x0c\x1c\x1d\x1e\x85\u2028\u2029\x1f"), max_size=20))
def test_the_first_line_is_that_of_splitlines(text: str) -> None:
    lines = (line.strip().lstrip("#").strip() for line in text.splitlines())
    assert first_line(text) == next(filter(None, lines), None)
