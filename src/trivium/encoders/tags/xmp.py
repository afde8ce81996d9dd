"""XMP packets (ISO 16684-1), read by expat: known properties, whatever way they are written; no document type."""

from xml.parsers import expat  # nosec B407 - bounded, without entities of its own, and in the sandbox

MAX_BYTES = 1 << 20
MAX_DEPTH = 100
MAX_CHARACTERS = 100_000  # of all properties together

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns# "
# Namespace and name -> the name by which it is known here.
PROPERTIES = {
    **{f"http://purl.org/dc/elements/1.1/ {name}": name for name in ("title", "description", "subject", "creator")},
    "http://purl.org/dc/elements/1.1/ rights": "rights",
    **{f"http://ns.adobe.com/xap/1.0/ {name}": name for name in ("Rating", "CreateDate")},
    **{f"http://ns.adobe.com/photoshop/1.0/ {name}": name for name in ("DateCreated", "Headline", "City", "Country")},
    **{f"http://ns.adobe.com/exif/1.0/ {name}": name for name in ("DateTimeOriginal",)},
    **{f"http://ns.adobe.com/tiff/1.0/ {name}": name for name in ("Make", "Model")},
    "http://ns.adobe.com/exif/1.0/aux/ Lens": "Lens",
    "http://cipa.jp/exif/1.0/ LensModel": "Lens",
    "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/ Location": "Location",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/ PersonInImage": "PersonInImage",
    "http://www.metadataworkinggroup.com/schemas/regions/ Name": "RegionName",
    "http://www.metadataworkinggroup.com/schemas/regions/ Type": "RegionType",
    "http://ns.microsoft.com/photo/1.2/t/Region# PersonDisplayName": "PersonInImage",
}


class XmpError(ValueError):
    """A packet that is not read; the message says why."""


def read_xmp(packet: bytes) -> dict[str, list[str]]:
    """Return the values of `PROPERTIES`, by their short names, in order.

    Raises:
        XmpError: If it is no XML, has a document type, or is too large.
    """
    if len(packet) > MAX_BYTES:
        raise XmpError(f"{len(packet):,} bytes, at most {MAX_BYTES:,} are read")
    reading = _Reading()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.characters
    parser.StartDoctypeDeclHandler = reading.refuse_type
    try:
        parser.Parse(packet.strip(b"\0 \r\n\t"), True)
    except expat.ExpatError as error:
        raise XmpError(f"not XML: {error}") from error
    return reading.found


class _Reading:
    """Follows elements; a property's value stands in it, in the items of its list, or in an attribute."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}
        self._properties: list[str | None] = []  # which property each open element belongs to
        self._text: list[str] = []
        self._characters = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._properties) == MAX_DEPTH:
            raise XmpError("nested too deeply")
        inherited = self._properties[-1] if self._properties and name.startswith(_RDF) else None
        self._properties.append(PROPERTIES.get(name, inherited))
        self._text.clear()
        for attribute, value in attributes.items():
            self._take(PROPERTIES.get(attribute), value)

    def end(self, _: str) -> None:
        self._take(self._properties.pop(), "".join(self._text))
        self._text.clear()

    def characters(self, text: str) -> None:
        if self._properties[-1] is not None:
            self._text.append(text)

    def refuse_type(self, *_: object) -> None:
        raise XmpError("a document type, which XMP has not")

    def _take(self, name: str | None, text: str) -> None:
        if name is None or not (text := text.strip()):
            return
        self._characters += len(text)
        if self._characters > MAX_CHARACTERS:
            raise XmpError(f"more than {MAX_CHARACTERS:,} characters")
        self.found.setdefault(name, []).append(text)
