"""Words of files to values: texts that mean something, times that sort, numbers, places; and how much is taken."""

import datetime
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

Tag: TypeAlias = str | int | float | bool | list[str]
Tags: TypeAlias = dict[str, Tag]  # by the names of docs/metadata.md

MAX_TAGS_BYTES = 32 << 10  # of a file, as they are sent: JSON of ASCII
MAX_TEXT = 10_000  # characters
MAX_ENTRIES = 500  # of a list
# What cameras and programs write into each file where its owner wrote nothing.
_GENERIC = re.compile(
    r"\W*|untitled|default|unknown|none|null|ascii|unicode|charset=.*|screenshot|image description|"
    r"((olympus|minolta|konica minolta|sony|nikon|samsung|canon|fujifilm|polaroid|kodak|casio|pentax|ricoh|kenox|hp|"
    r"vivitar|benq|medion|jenoptik)\b[\w .,/-]{0,24})?(dsc|digital (still )?camera|camera pictures)\W*|<?kenox .*|"
    r"dcf \d.*|exif[_ ]jpeg(_picture|_t\d*)?|jpeg picture|(created|made|processed|edited|taken) (with|by|using) .*|"
    r"(img|dscn?|dscf|pict|image|photo|mvi|vid|pxl|p)[ _-]?\d[\w-]*(\.\w{2,4})?|"
    r"oznor|rhdr|hdr|hdrpl|dav|sdr|edf|mde|rbt|cof|qrf|fbt|ptr|nor|btf|bty|nfd|vhdr|sdr_hdr",  # how a phone took it
    re.IGNORECASE | re.DOTALL,
)
_MAX_GENERIC = 80  # characters
_TIME = re.compile(
    r"\s*(?P<date>\d{4}[:/-]\d\d[:/-]\d\d)(?:[T ]\s?(?P<time>\d\d:\d\d)(?P<seconds>:\d\d)?(?:[.,]\d+)?)?\s*"
    r"(?P<offset>Z|[+-]\d\d:?\d\d)?\s*",
    re.ASCII,
)
_NO_DATE = ("1904-01-01", "1970-01-01", "1980-01-01", "2000-01-01T00:00:00")  # clocks that were never set
_YEAR = re.compile(r"\s*((?:1[89]|20)\d\d)(?!\d)", re.ASCII)
_ISO_6709 = re.compile(r"([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def text_of(value: object) -> str:
    """Return a text of what stands in a tag, empty if there is none.

    What is not marked as UTF-8 may be: a text of Latin-1 that reads as UTF-8 is that.
    """
    if isinstance(value, str):
        try:
            value = value.encode("latin-1")
        except UnicodeEncodeError:
            return _CONTROL.sub("", str(value)).strip()
    if not isinstance(value, bytes):
        return ""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("cp1252", "replace")
    return _CONTROL.sub("", text).strip()


def meant(text: str) -> str:
    """Return a title or a description, empty if no person has written it."""
    return "" if len(text) <= _MAX_GENERIC and _GENERIC.fullmatch(text) else text


def put_text(tags: Tags, name: str, *texts: str) -> None:
    """Take the first text that there is."""
    if name not in tags and (text := next(filter(None, texts), "")):
        tags[name] = text


def put_list(tags: Tags, name: str, entries: Iterable[str]) -> None:
    """Add entries to a list, each once."""
    before = tags.get(name)
    together: list[str] = [*(before if isinstance(before, list) else []), *filter(None, entries)]
    if together:
        tags[name] = list(dict.fromkeys(together))[:MAX_ENTRIES]


def put_number(tags: Tags, name: str, value: object, *, least: float = 0, most: float = math.inf) -> None:
    """Take a number within bounds; whole numbers stay whole."""
    if name in tags:
        return
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ArithmeticError):  # Pillow's fractions may be 0/0
        return
    if math.isfinite(number) and least <= number <= most:
        tags[name] = int(number) if number.is_integer() else float(f"{number:.6g}")


def put_time(tags: Tags, text: str, *, offset: str = "") -> None:
    """Take when something was taken, unless that is known: local time in ISO 8601, which sorts, and its offset."""
    match = _TIME.fullmatch(text)
    if match is None or "taken" in tags:
        return
    date = re.sub("[:/]", "-", match["date"])
    taken = f"{date}T{match['time']}{match['seconds'] or ':00'}" if match["time"] else date
    try:
        datetime.datetime.fromisoformat(taken)
    except ValueError:
        return
    if taken.startswith(_NO_DATE):
        return
    tags["taken"] = taken
    put_year(tags, taken)
    zone = _TIME.fullmatch(f"{date}{offset.strip()}")
    if (found := match["offset"] or (zone and zone["offset"])) and len(taken) > 10:
        tags["taken_offset"] = "+00:00" if found == "Z" else f"{found[:3]}:{found[-2:]}"


def put_year(tags: Tags, text: str) -> None:
    """Take the year that a date begins with."""
    if "year" not in tags and (match := _YEAR.match(text)):
        tags["year"] = int(match[1])


def put_camera(tags: Tags, make: str, model: str) -> None:
    """Take a camera's name: its maker's once."""
    maker = make.split()[0].casefold() if make else ""
    put_text(tags, "camera", model if maker and model.casefold().startswith(maker) else f"{make} {model}".strip())


def put_place(tags: Tags, latitude: object, longitude: object, altitude: object = None) -> None:
    """Take degrees, north and east above 0, and metres."""
    put_number(tags, "latitude", latitude, least=-90, most=90)
    put_number(tags, "longitude", longitude, least=-180, most=180)
    put_number(tags, "gps_altitude", altitude, least=-12_000, most=1e6)


def put_iso_6709(tags: Tags, text: str) -> None:
    """Take a place as phones write it into videos: +48.8566+002.3522+035.000/."""
    if match := _ISO_6709.match(text.strip()):
        put_place(tags, *match.groups())


def bounded(tags: Mapping[str, Tag]) -> tuple[Tags, list[str]]:
    """Return what of the tags is taken, and the names of those that are too long, or too many together."""
    taken: Tags = {}
    left_out: list[str] = []
    size = 0
    for name, value in tags.items():
        length = len(value) if isinstance(value, str) else sum(map(len, value)) if isinstance(value, list) else 0
        size_of = len(json.dumps({name: value})) if length <= MAX_TEXT else MAX_TAGS_BYTES
        if length > MAX_TEXT or size + size_of > MAX_TAGS_BYTES:
            left_out.append(name)
            continue
        taken[name] = value
        size += size_of
    return taken, left_out
