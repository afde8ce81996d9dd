"""What pictures say of themselves: EXIF, IPTC and XMP by Pillow, under our names."""

import io
from collections.abc import Callable, Mapping
from typing import Any

from PIL import ExifTags, Image, IptcImagePlugin, UnidentifiedImageError

from trivium.encoders.decoding.pictures import formats_of
from trivium.encoders.decoding.raw_pictures import is_raw, preview_of
from trivium.encoders.decoding.sources import Source, as_file
from trivium.encoders.tags.words import (
    Tags,
    meant,
    put_camera,
    put_list,
    put_number,
    put_place,
    put_text,
    put_time,
    text_of,
)
from trivium.encoders.tags.xmp import read_xmp

EXIF = ExifTags.Base
GPS = ExifTags.GPS
_XP_TITLE, _XP_COMMENT, _XP_AUTHOR, _XP_KEYWORDS = 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E  # of Windows, UTF-16
_RATING = 0x4746  # of Windows, 0 to 5
_MAX_IPTC_BYTES = 1 << 20
_TURNED = (5, 6, 7, 8)  # orientations that swap width and height


def picture_tags(data: Source) -> tuple[Tags, list[str]]:
    """Read what a picture says of itself.

    Returns:
        Tags, and a sentence for each part that cannot be read.
    """
    formats = formats_of(data)
    if not formats:  # a drawing
        return {}, []
    tags: Tags = {}
    problems: list[str] = []

    def part(name: str, read: Callable[[], None]) -> None:
        try:
            read()
        except MemoryError:
            raise
        except Exception as error:  # parsers of damaged data leak errors of all kinds
            problems.append(f"{name} cannot be read: {error or type(error).__name__}")

    with _opened(data, formats) as image:
        exif: dict[int, Any] = {}
        part("EXIF", lambda: exif.update(_exif(image)))
        turned = exif.get(EXIF.Orientation) in _TURNED
        tags["width"], tags["height"] = image.size[::-1] if turned else image.size
        part("XMP", lambda: _take_xmp(tags, exif, image.info.get("xmp")))
        part("IPTC", lambda: _take_iptc(tags, image))
        part("EXIF", lambda: _take_exif(tags, exif))
        part("its texts", lambda: _take_info(tags, image.info))
    return tags, problems


def _opened(data: Source, formats: tuple[str, ...]) -> Image.Image:
    file: Any = as_file(data)
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError:
        if not is_raw(data):
            raise
        return Image.open(io.BytesIO(preview_of(data[:])), formats=formats)  # no TIFF, as most raw files are


def _exif(image: Image.Image) -> dict[int, Any]:
    """Return the entries of all directories that are read, in one: their numbers differ."""
    exif = image.getexif()
    entries = dict(exif)
    entries.update(exif.get_ifd(ExifTags.IFD.Exif))
    entries[ExifTags.IFD.GPSInfo] = exif.get_ifd(ExifTags.IFD.GPSInfo)
    return entries


def _take_exif(tags: Tags, exif: Mapping[int, Any]) -> None:
    put_time(tags, text_of(exif.get(EXIF.DateTimeDigitized)), offset=text_of(exif.get(EXIF.OffsetTimeDigitized)))
    put_time(tags, text_of(exif.get(EXIF.DateTime)), offset=text_of(exif.get(EXIF.OffsetTime)))
    put_camera(tags, text_of(exif.get(EXIF.Make)), text_of(exif.get(EXIF.Model)))
    put_text(tags, "lens", text_of(exif.get(EXIF.LensModel)))
    put_text(tags, "title", meant(_wide(exif.get(_XP_TITLE))))
    put_text(tags, "description", meant(text_of(exif.get(EXIF.ImageDescription))), meant(_wide(exif.get(_XP_COMMENT))))
    put_text(tags, "artist", text_of(exif.get(EXIF.Artist)), _wide(exif.get(_XP_AUTHOR)))
    put_text(tags, "copyright", text_of(exif.get(EXIF.Copyright)))
    put_list(tags, "keywords", (word.strip() for word in _wide(exif.get(_XP_KEYWORDS)).split(";")))
    put_number(tags, "rating", exif.get(_RATING), most=5)
    put_number(tags, "exposure_seconds", exif.get(EXIF.ExposureTime))
    put_number(tags, "aperture", exif.get(EXIF.FNumber), least=0.1)
    iso = exif.get(EXIF.ISOSpeedRatings)
    put_number(tags, "iso", iso[0] if isinstance(iso, tuple) and iso else iso, least=1)
    put_number(tags, "focal_length_mm", exif.get(EXIF.FocalLength), least=0.1)
    if isinstance(flash := exif.get(EXIF.Flash), int):
        tags["flash"] = bool(flash & 1)
    _take_place(tags, exif.get(ExifTags.IFD.GPSInfo) or {})


def _take_place(tags: Tags, gps: Mapping[int, Any]) -> None:
    latitude = _degrees(gps.get(GPS.GPSLatitude), gps.get(GPS.GPSLatitudeRef) == "S")
    longitude = _degrees(gps.get(GPS.GPSLongitude), gps.get(GPS.GPSLongitudeRef) == "W")
    if latitude is None or longitude is None or latitude == longitude == 0:
        return
    altitude = gps.get(GPS.GPSAltitude)
    is_below = gps.get(GPS.GPSAltitudeRef) in (1, b"\x01")
    put_place(tags, latitude, longitude, -altitude if altitude is not None and is_below else altitude)


def _degrees(parts: Any, is_negative: bool) -> float | None:
    if not isinstance(parts, tuple) or len(parts) != 3:
        return None
    degrees: float = sum(float(part) / 60**place for place, part in enumerate(parts))
    return -degrees if is_negative else degrees


def _take_xmp(tags: Tags, exif: Mapping[int, Any], packet: Any) -> None:
    # When it was taken the camera knows best, and programs copy that with less care.
    put_time(tags, text_of(exif.get(EXIF.DateTimeOriginal)), offset=text_of(exif.get(EXIF.OffsetTimeOriginal)))
    if not isinstance(packet, bytes | str):
        return
    found = read_xmp(packet.encode() if isinstance(packet, str) else packet)

    def first(name: str) -> str:
        return found.get(name, [""])[0]

    for name in ("DateTimeOriginal", "DateCreated", "CreateDate"):
        put_time(tags, first(name))
    put_text(tags, "title", meant(first("title")), meant(first("Headline")))
    put_text(tags, "description", meant(first("description")))
    put_text(tags, "artist", ", ".join(found.get("creator", ())))
    put_text(tags, "copyright", first("rights"))
    put_list(tags, "keywords", found.get("subject", ()))
    put_list(tags, "people", [*found.get("PersonInImage", ()), *_faces(found)])
    put_number(tags, "rating", first("Rating"), least=-1, most=5)
    if not exif.get(EXIF.Model):
        put_camera(tags, first("Make"), first("Model"))
    if not exif.get(EXIF.LensModel):
        put_text(tags, "lens", first("Lens"))
    for name, known in (("location.name", "Location"), ("location.city", "City"), ("location.country", "Country")):
        put_text(tags, name, first(known))


def _faces(found: Mapping[str, list[str]]) -> list[str]:
    """Return the names of regions, but of pets and focus points where each region says what it is."""
    names, kinds = found.get("RegionName", []), found.get("RegionType", [])
    if len(kinds) != len(names):
        return names
    return [name for name, kind in zip(names, kinds, strict=True) if kind == "Face"]


def _take_iptc(tags: Tags, image: Image.Image) -> None:
    photoshop = image.info.get("photoshop")
    if isinstance(photoshop, dict) and len(photoshop.get(0x0404) or b"") > _MAX_IPTC_BYTES:
        raise ValueError(f"more than {_MAX_IPTC_BYTES:,} bytes")
    found: Mapping[Any, Any] = IptcImagePlugin.getiptcinfo(image) or {}  # type: ignore[arg-type]

    def texts(number: int) -> list[str]:
        values = found.get((2, number), [])
        return [text_of(value) for value in (values if isinstance(values, list) else [values])]

    def first(number: int) -> str:
        return next(iter(texts(number)), "")

    date, time = first(55), first(60)  # CCYYMMDD, HHMMSS+HHMM
    put_time(tags, f"{date[:4]}-{date[4:6]}-{date[6:8]}T{time[:2]}:{time[2:4]}:{time[4:6]}{time[6:]}")
    put_time(tags, f"{date[:4]}-{date[4:6]}-{date[6:8]}")
    put_text(tags, "title", meant(first(5)), meant(first(105)))
    put_text(tags, "description", meant(first(120)))
    put_text(tags, "artist", ", ".join(texts(80)))
    put_text(tags, "copyright", first(116))
    put_list(tags, "keywords", texts(25))
    for name, number in (("location.name", 92), ("location.city", 90), ("location.country", 101)):
        put_text(tags, name, first(number))


def _take_info(tags: Tags, info: Mapping[Any, Any]) -> None:
    """Take the texts of a PNG (its specification, 11.3.3.2)."""
    for name, keyword in (("title", "Title"), ("description", "Description")):
        put_text(tags, name, meant(text_of(info.get(keyword))))
    put_text(tags, "artist", text_of(info.get("Author")))
    put_text(tags, "copyright", text_of(info.get("Copyright")))


def _wide(value: Any) -> str:
    """Return a text of Windows."""
    return text_of(value.decode("utf-16-le", "replace").encode()) if isinstance(value, bytes) else ""
