"""Pictures and sounds that say something of themselves, written by Pillow and libsndfile."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import soundfile
from PIL import ExifTags, Image

PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:r="http://www.metadataworkinggroup.com/schemas/regions/" xmp:Rating="4" photoshop:City="Köln"
 xmp:CreateDate="2020-01-01T00:00:01">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Am Rhein</rdf:li>
<rdf:li xml:lang="en">On the Rhine</rdf:li></rdf:Alt></dc:title>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">Zwei Hunde im Fluss</rdf:li></rdf:Alt></dc:description>
<dc:subject><rdf:Bag><rdf:li>Hund</rdf:li><rdf:li>Fluss</rdf:li></rdf:Bag></dc:subject>
<dc:creator><rdf:Seq><rdf:li>Ann</rdf:li></rdf:Seq></dc:creator>
<e:PersonInImage><rdf:Bag><rdf:li>Bo</rdf:li></rdf:Bag></e:PersonInImage>
<r:Regions rdf:parseType="Resource"><r:RegionList><rdf:Bag>
<rdf:li rdf:parseType="Resource"><r:Name>Cy</r:Name><r:Type>Face</r:Type></rdf:li>
<rdf:li><rdf:Description r:Name="Rex" r:Type="Pet"/></rdf:li></rdf:Bag></r:RegionList></r:Regions>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>""".encode()


def exif(**entries: Any) -> Image.Exif:
    """Entries by the names of Pillow, in the directories where they belong."""
    made = Image.Exif()
    for name, value in entries.items():
        key = ExifTags.Base[name] if name in ExifTags.Base.__members__ else ExifTags.GPS[name]
        if name.startswith("GPS"):
            made.get_ifd(ExifTags.IFD.GPSInfo)[key] = value
        elif key in INNER:
            made.get_ifd(ExifTags.IFD.Exif)[key] = value
        else:
            made[key] = value
    return made


INNER = {
    ExifTags.Base[name]
    for name in (
        *("DateTimeOriginal", "DateTimeDigitized", "OffsetTimeOriginal", "LensModel", "ExposureTime", "FNumber"),
        *("ISOSpeedRatings", "FocalLength", "Flash"),
    )
}
CAMERA = exif(
    Make="Canon",
    Model="Canon EOS 5D",
    ImageDescription="A dog in the river",
    Artist="Ann",
    Copyright="Ann 2024",
    DateTime="2024:06:01 00:00:00",
    DateTimeOriginal="2024:05:01 10:11:12",
    OffsetTimeOriginal="+02:00",
    LensModel="EF50mm f/1.8",
    ExposureTime=1 / 250,
    FNumber=2.8,
    ISOSpeedRatings=100,
    FocalLength=50.0,
    Flash=1,
    GPSLatitudeRef="S",
    GPSLatitude=(48.0, 30.0, 0.0),
    GPSLongitudeRef="E",
    GPSLongitude=(11.0, 15.0, 36.0),
    GPSAltitudeRef=b"\x00",
    GPSAltitude=520.5,
)


def picture(kind: str = "JPEG", *, size: tuple[int, int] = (32, 24), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, kind, **options)
    return buffer.getvalue()


def iptc(**entries: str | list[str]) -> bytes:
    """A JPEG with an IPTC block in Photoshop's marker."""
    numbers = {"title": 5, "keywords": 25, "date": 55, "time": 60, "by": 80, "city": 90, "caption": 120}
    block = b"\x1c\x01\x5a\x00\x03\x1b%G"
    for name, values in entries.items():
        for value in [values] if isinstance(values, str) else values:
            text = value.encode()
            block += bytes([0x1C, 2, numbers[name]]) + len(text).to_bytes(2) + text
    resource = b"8BIM\x04\x04\0\0" + len(block).to_bytes(4) + block + b"\0" * (len(block) % 2)
    marker = b"Photoshop 3.0\0" + resource
    plain = picture()
    return plain[:2] + b"\xff\xed" + (len(marker) + 2).to_bytes(2) + marker + plain[2:]


SOUND_TAGS = {
    "title": "Über den Wolken",
    "artist": "Ann",
    "album": "Clouds",
    "genre": "Folk",
    "date": "1999-03-04",
    "tracknumber": "3/12",
    "comment": "live",
}


def sound(kind: str = "WAV", tags: Mapping[str, str] | None = None) -> bytes:
    buffer: Any = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 8000, 1, format=kind) as file:
        for name, text in (tags or {}).items():
            setattr(file, name, text)
        file.write(np.sin(np.arange(12_000) / 9).astype(np.float32) / 2)
    return bytes(buffer.getvalue())
