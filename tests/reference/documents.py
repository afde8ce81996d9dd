"""Small documents and raw files made by hand: PDF of pages of words, DNG with a preview in it."""

import struct
from collections.abc import Sequence

import numpy as np

PREVIEW_AT, BELOW_AT = 4096, 2048  # in a DNG
FORMS = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 10: "i"}  # of a TIFF's values


def pdf(pages: Sequence[str]) -> bytes:
    """Return a PDF with a line on each page, in Helvetica."""
    parent, count = 2 + 2 * len(pages), len(pages)
    objects = [b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"]
    for number, words in enumerate(pages):
        drawn = b"BT /F1 12 Tf 50 700 Td (%b) Tj ET" % words.encode("cp1252")
        objects.append(b"<< /Length %d >>\nstream\n%b\nendstream" % (len(drawn), drawn))
        objects.append(
            b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 1 0 R >> >> >>" % (parent, 2 + 2 * number)
        )
    kids = b" ".join(b"%d 0 R" % (3 + 2 * number) for number in range(count))
    objects.append(b"<< /Type /Pages /Count %d /Kids [%b] >>" % (count, kids))
    objects.append(b"<< /Type /Catalog /Pages %d 0 R >>" % parent)
    made, places = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return made + (
        b"xref\n0 %d\n0000000000 65535 f \n%btrailer << /Size %d /Root %d 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (len(objects) + 1, table, len(objects) + 1, len(objects), len(made))
    )


def dng(preview: bytes | None, *, orientation: int = 1, size: tuple[int, int] = (64, 48)) -> bytes:
    """Return a raw file of noise (Adobe's Digital Negative 1.4) with a JPEG, 160 x 120, as its preview."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 4095, (height, width)).astype("<u2").tobytes()
    shown = preview or b""
    noise_at = PREVIEW_AT + len(shown) + len(shown) % 2
    sensor = [
        *[(254, 4, [0]), (256, 4, [width]), (257, 4, [height]), (258, 3, [16]), (259, 3, [1]), (262, 3, [32803])],
        *[(273, 4, [noise_at]), (277, 3, [1]), (278, 4, [height]), (279, 4, [len(noise)])],
        *[(33421, 3, [2, 2]), (33422, 1, [0, 1, 1, 2])],
    ]
    camera = [
        *[(271, 2, list(b"Trivium\0")), (272, 2, list(b"Test\0")), (274, 3, [orientation])],
        *[(50706, 1, [1, 4, 0, 0]), (50708, 2, list(b"Test\0"))],
        *[(50721, 10, [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1])],
        *[(50728, 5, [1, 1, 1, 1, 1, 1]), (50778, 3, [21])],
    ]
    small = [
        *[(254, 4, [1]), (256, 4, [160]), (257, 4, [120]), (258, 3, [8, 8, 8]), (259, 3, [7]), (262, 3, [6])],
        *[(273, 4, [PREVIEW_AT]), (277, 3, [3]), (278, 4, [120]), (279, 4, [len(shown)]), (330, 4, [BELOW_AT])],
    ]
    made = b"II*\0" + struct.pack("<I", 8) + _directory(camera + (small if preview else sensor), 8)
    made = made.ljust(BELOW_AT, b"\0") + (_directory(sensor, BELOW_AT) if preview else b"")
    return (made.ljust(PREVIEW_AT, b"\0") + shown).ljust(noise_at, b"\0") + noise


def _directory(entries: Sequence[tuple[int, int, list[int]]], place: int) -> bytes:
    after = place + 2 + 12 * len(entries) + 4
    body, extra = struct.pack("<H", len(entries)), b""
    for tag, form, values in sorted(entries):
        data = struct.pack(f"<{len(values)}{FORMS[form]}", *values)
        count = len(values) // (2 if form in (5, 10) else 1)
        if len(data) > 4:
            data, extra = struct.pack("<I", after + len(extra)), extra + data + bytes(len(data) % 2)
        body += struct.pack("<HHI", tag, form, count) + data.ljust(4, b"\0")
    return body + bytes(4) + extra
