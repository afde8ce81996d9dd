"""What pictures say of themselves: written by Pillow and as programs write it, read under our names."""

import pytest
from PIL import Image, PngImagePlugin

from tagged_media import CAMERA, PACKET, exif, iptc, picture
from trivium.encoders.tags.pictures import picture_tags
from trivium.encoders.tags.reading import read_tags
from trivium.encoders.tags.words import Tags


def tags(data: bytes) -> Tags:
    found, problems = picture_tags(data)
    assert problems == []
    return found


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_exif_of_every_format(kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    found = tags(picture(kind, exif=CAMERA.tobytes()))
    expected = {
        "taken": "2024-05-01T10:11:12",
        "taken_offset": "+02:00",
        "year": 2024,
        "camera": "Canon EOS 5D",
        "lens": "EF50mm f/1.8",
        "description": "A dog in the river",
        "artist": "Ann",
        "copyright": "Ann 2024",
        "exposure_seconds": 0.004,
        "aperture": 2.8,
        "iso": 100,
        "focal_length_mm": 50,
        "flash": True,
        "latitude": -48.5,
        "longitude": 11.26,
        "gps_altitude": 520.5,
        "width": 32,
        "height": 24,
    }
    assert found == expected


def test_xmp() -> None:
    assert tags(picture(xmp=PACKET)) == {
        "width": 32,
        "height": 24,
        "taken": "2020-01-01T00:00:01",
        "year": 2020,
        "title": "Am Rhein",
        "description": "Zwei Hunde im Fluss",
        "keywords": ["Hund", "Fluss"],
        "artist": "Ann",
        "people": ["Bo", "Cy"],
        "rating": 4,
        "location.city": "Köln",
    }
    for kind in ("PNG", "WEBP", "TIFF"):
        if kind == "PNG":
            info = PngImagePlugin.PngInfo()
            info.add_itxt("XML:com.adobe.xmp", PACKET.decode())
            data = picture("PNG", pnginfo=info)
        else:
            data = picture(kind, **({"tiffinfo": {700: PACKET}} if kind == "TIFF" else {"xmp": PACKET}))
        assert tags(data)["title"] == "Am Rhein", kind


def test_iptc() -> None:
    data = iptc(
        title="Market", keywords=["fish", "Früchte"], date="20190203", time="101112+0100", by="Ann", city="Köln",
        caption="People buy fish",
    )  # fmt: skip
    assert tags(data) == {
        "width": 32,
        "height": 24,
        "taken": "2019-02-03T10:11:12",
        "taken_offset": "+01:00",
        "year": 2019,
        "title": "Market",
        "description": "People buy fish",
        "keywords": ["fish", "Früchte"],
        "artist": "Ann",
        "location.city": "Köln",
    }
    assert tags(iptc(keywords="one", date="20190203"))["taken"] == "2019-02-03"


def test_xmp_comes_before_exif_but_for_the_time() -> None:
    found = tags(picture(exif=CAMERA.tobytes(), xmp=PACKET))
    assert (found["description"], found["taken"]) == ("Zwei Hunde im Fluss", "2024-05-01T10:11:12")


def test_texts_of_png() -> None:
    info = PngImagePlugin.PngInfo()
    for name, text in (("Title", "Tree"), ("Description", "An old tree"), ("Author", "Ann"), ("Software", "x")):
        info.add_text(name, text)
    found = tags(picture("PNG", pnginfo=info))
    assert found == {"width": 32, "height": 24, "title": "Tree", "description": "An old tree", "artist": "Ann"}


def test_texts_of_windows() -> None:
    made = Image.Exif()
    made[0x9C9B] = "Ein Zug\0".encode("utf-16-le")
    made[0x9C9E] = "Zug;Köln\0".encode("utf-16-le")
    made[0x4746] = 3
    found = tags(picture(exif=made.tobytes()))
    assert (found["title"], found["keywords"], found["rating"]) == ("Ein Zug", ["Zug", "Köln"], 3)


def test_utf8_in_exif_is_utf8() -> None:
    raw = exif(ImageDescription="MARK").tobytes().replace(b"MARK\0", "Zür\0".encode())
    assert tags(picture(exif=raw))["description"] == "Zür"


def test_sides_are_those_of_the_upright_picture() -> None:
    found = tags(picture(exif=exif(Orientation=6).tobytes()))
    assert (found["width"], found["height"]) == (24, 32)


@pytest.mark.parametrize(
    "words",
    [
        *("OLYMPUS DIGITAL CAMERA", "SONY DSC", "SAMSUNG CAMERA PICTURES", "KONICA MINOLTA DIGITAL CAMERA", "DCF 1.0"),
        *(
            "Exif_JPEG_PICTURE",
            "oznor",
            "hdrpl",
            "Created with GIMP",
            "Processed with VSCO with f2 preset",
            "   ",
            "---",
        ),
        *("IMG_1234", "DSC00012.JPG", "untitled", "Screenshot", "Nikon Digital Camera"),
        *("<KENOX S630  / Samsung S630>",),
    ],
)
def test_what_cameras_write_by_themselves_is_nobodys_words(words: str) -> None:
    found = tags(picture(exif=exif(ImageDescription=words, Model="X").tobytes()))
    assert "description" not in found
    assert found["camera"] == "X"


@pytest.mark.parametrize(
    "words", ["Dog", "Paris", "Sony DSC-RX100 beside a cup", "Photo of 2 dogs", "a digital camera"]
)
def test_what_people_write_is_kept(words: str) -> None:
    assert tags(picture(exif=exif(ImageDescription=words).tobytes()))["description"] == words


@pytest.mark.parametrize(
    "time", ["0000:00:00 00:00:00", "    :  :     :  :  ", "2024:13:01 00:00:00", "x", "1970:01:01 00:00:00"]
)
def test_times_that_are_none(time: str) -> None:
    assert "taken" not in tags(picture(exif=exif(DateTimeOriginal=time).tobytes()))


def test_a_drawing_says_nothing() -> None:
    assert tags(b'<svg xmlns="http://www.w3.org/2000/svg"><title>x</title></svg>') == {}


def test_a_broken_part_costs_itself_only() -> None:
    doctype = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x:xmpmeta xmlns:x="adobe:ns:meta/">&a;</x:xmpmeta>'
    for packet, why in (
        (b"<x:xmpmeta", "XMP cannot be read: not XML: unclosed token"),
        (doctype, "XMP cannot be read: a document type, which XMP has not"),
        (b"<a>" * 200, "XMP cannot be read: nested too deeply"),
    ):
        found, problems = picture_tags(picture(exif=CAMERA.tobytes(), xmp=packet))
        assert found["camera"] == "Canon EOS 5D"
        assert found["taken"] == "2024-05-01T10:11:12"
        assert len(problems) == 1
        assert problems[0].startswith(why)


def test_whatever_bytes_stand_in_exif_the_picture_is_read() -> None:
    raw = CAMERA.tobytes()
    for place in range(6, len(raw), 3):
        for value in (0, 0xFF):
            changed = raw[:place] + bytes([value]) * 2 + raw[place + 2 :]
            told = read_tags("image", picture(exif=changed))
            assert (told.tags["width"], told.tags["height"]) in ((32, 24), (24, 32))


def test_what_a_file_says_is_bounded() -> None:
    packet = PACKET.replace(b"Zwei Hunde im Fluss", b"x" * 10_001)
    told = read_tags("image", picture(xmp=packet))
    assert "description" not in told.tags
    assert told.tags["title"] == "Am Rhein"
    assert told.problems == ["too long, and left out: description"]
    words = "".join(f"<rdf:li>{'é' * 20}{n}</rdf:li>" for n in range(400)).encode()
    told = read_tags("image", picture(xmp=PACKET.replace(b"<rdf:li>Hund</rdf:li>", words)))
    assert told.problems == ["too long, and left out: keywords"]
