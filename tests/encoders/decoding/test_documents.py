"""PDF and Word documents in the sandbox: their text, what is refused and why, and that hostile ones are bounded."""

import importlib.util
import io
import zipfile
from collections.abc import Callable, Iterator
from types import ModuleType

import docx
import pytest

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.documents import decode_document, is_document, page_of
from trivium.encoders.sandbox.pool import DecodeSandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[DecodeSandbox]:
    with DecodeSandbox(1) as pool:
        yield pool


@pytest.fixture
def made(reference: Callable[[str], ModuleType]) -> ModuleType:
    return reference("documents")


def word() -> bytes:
    document = docx.Document()
    document.add_heading("On foxes")
    document.add_paragraph("They are red.")
    cell = document.add_table(1, 2).cell(0, 1)
    cell.text = "vixen"
    cell.add_table(1, 1).cell(0, 0).text = "cub"
    document.add_paragraph("The end.")
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def test_pdf(sandbox: DecodeSandbox, made: ModuleType) -> None:
    text = sandbox.text(made.pdf(["The red fox", "A caf\u00e9 in Paris", "Third"]), most=1000)
    assert text == "The red fox\fA caf\u00e9 in Paris\fThird"
    assert [page_of(text, text.index(word)) for word in ("red", "Paris", "Third")] == [1, 2, 3]


def test_word(sandbox: DecodeSandbox) -> None:
    assert sandbox.text(word(), most=1000).split() == "On foxes They are red. vixen cub The end.".split()


def test_no_more_than_is_asked_for(sandbox: DecodeSandbox, made: ModuleType) -> None:
    assert sandbox.text(made.pdf(["abc"] * 5000), most=10) == "abc\fabc\fab"
    assert sandbox.text(word(), most=5) == "On fo"


def test_plain_texts_are_as_before(sandbox: DecodeSandbox) -> None:
    assert not is_document(b"about %PD files, PK and all")
    assert sandbox.text(b"h\xc3\xa9", most=10) == "h\u00e9"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"%PDF-1.7 nothing", "damaged document: Failed to load document"),
        (b"PK\3\4 nothing", "not a Word document that can be read: File is not a zip file"),
    ],
)
def test_what_is_damaged_is_refused(data: bytes, words: str, sandbox: DecodeSandbox) -> None:
    with pytest.raises(DecodeError, match=words):
        sandbox.text(data, most=1000)


def test_another_zip_is_no_document(sandbox: DecodeSandbox) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(DecodeError, match="not a Word document that can be read: "):
        sandbox.text(file.getvalue(), most=1000)


def test_pages_without_text_are_told(sandbox: DecodeSandbox, made: ModuleType) -> None:
    with pytest.raises(DecodeError, match=r"the document holds no text \(are its pages scanned"):
        sandbox.text(made.pdf(["", ""]), most=1000)


def test_what_is_locked_is_told(sandbox: DecodeSandbox, made: ModuleType) -> None:
    # The standard handler, revision 3, whose keys are of no password that anybody has.
    lock = b"<< /Filter /Standard /V 2 /R 3 /Length 128 /P -44 /O (%b) /U (%b) >>" % (b"o" * 32, b"u" * 32)
    data = made.pdf(["secret"]).replace(b"trailer <<", b"trailer << /ID [(a) (a)] /Encrypt %b" % lock)
    with pytest.raises(DecodeError, match="the document is locked by a password"):
        sandbox.text(data, most=1000)


def test_a_bomb_costs_the_file_alone(sandbox: DecodeSandbox) -> None:
    whole = zipfile.ZipFile(io.BytesIO(word()))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in whole.namelist():
            if name != "word/document.xml":
                archive.writestr(name, whole.read(name))
        with archive.open("word/document.xml", "w", force_zip64=True) as entry:
            for _ in range(300):
                entry.write(b" " * (10 << 20))
    with pytest.raises(DecodeError, match=r"needs more than 2 GiB of memory to decode|took longer than"):
        sandbox.text(file.getvalue(), most=1000)
    assert sandbox.text(word(), most=5) == "On fo"


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, made: ModuleType) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for data in (made.pdf(["x"]), word()):
        with pytest.raises(DecodeError, match=r"needs trivium\[documents\] \(run pip install 'trivium\[documents\]'\)"):
            decode_document(data, most=10)
