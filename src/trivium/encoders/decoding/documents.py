"""PDF and Word documents to their text: by PDFium and python-docx, which come with the extra ``documents``.

A document is a text: pages follow each other with a form feed between them, as `pdftotext` has it. What is drawn, and
pages that are scanned, are not read. It runs in a worker (`sandbox`), for both libraries read files from anywhere.
"""

import importlib.util
import io
from collections.abc import Iterator

from trivium.encoders.base import DecodeError

PDF = b"%PDF-"
PDF_HEAD_BYTES = 1024  # the header may come behind something else
ZIP = b"PK\3\4"
PAGE_BREAK = "\f"
MAX_PAGES = 20_000
WRONG_PASSWORD = 4  # FPDF_ERR_PASSWORD


def is_document(data: bytes) -> bool:
    """Whether a file is no plain text but a document, by its first bytes."""
    return data.startswith(ZIP) or PDF in data[:PDF_HEAD_BYTES]


def decode_document(data: bytes, *, most: int) -> str:
    """Return a document's text.

    Args:
        data: The file.
        most: How many characters are kept; the rest is not looked at.

    Raises:
        DecodeError: If it is no document that is read, damaged, locked by a password, holds no text, or the extra that
            reads it is not installed.
    """
    is_word = data.startswith(ZIP)
    _require("docx" if is_word else "pypdfium2")
    kept: list[str] = []
    count = 0
    for piece in _word(data) if is_word else _pages(data):
        kept.append(piece.replace("\r\n", "\n").replace("\0", "")[: most - count])
        count += len(kept[-1])
        if count >= most:
            break
    text = "".join(kept).removesuffix(PAGE_BREAK)
    if not text.strip():
        raise DecodeError("the document holds no text (are its pages scanned, or pictures?)")
    return text


def page_of(text: str, place: int) -> int:
    """Return on which page of a document's text, counted from 1, a character is."""
    return text.count(PAGE_BREAK, 0, place) + 1


def _require(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise DecodeError("needs trivium[documents] (run pip install 'trivium[documents]')")


def _pages(data: bytes) -> Iterator[str]:
    import pypdfium2
    import pypdfium2.raw

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if pypdfium2.raw.FPDF_GetLastError() == WRONG_PASSWORD:
            raise DecodeError("the document is locked by a password") from error
        raise DecodeError(f"damaged document: {error}") from error
    for number in range(min(len(document), MAX_PAGES)):
        try:
            page = document[number]
            words = page.get_textpage()
        except pypdfium2.PdfiumError as error:
            raise DecodeError(f"damaged document: page {number + 1}: {error}") from error
        yield words.get_text_range(errors="ignore").replace(PAGE_BREAK, "\n") + PAGE_BREAK
        words.close()
        page.close()


def _word(data: bytes) -> Iterator[str]:
    import docx
    from docx.oxml.ns import qn

    try:
        body = docx.Document(io.BytesIO(data)).element.body
        # In the order of the document, those of tables and text frames too; a frame is there twice, for old readers.
        for paragraph in body.iter(qn("w:p")):
            if not any(above.tag.endswith("}Fallback") for above in paragraph.iterancestors()):
                yield f"{paragraph.text}\n"
    except (DecodeError, MemoryError):
        raise
    except Exception as error:  # zipfile, lxml and python-docx each have their own
        raise DecodeError(f"not a Word document that can be read: {error or type(error).__name__}") from error
