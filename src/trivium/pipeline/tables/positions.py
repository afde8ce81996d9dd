"""Which metadata tell of a place on Earth: by their keys, as far as those tell. They are private."""

import functools
import re
from typing import Literal

_POSITION = re.compile(r"gps|latitude|longitude|(?<![a-z])location\.")
_POSITION_WORDS = {"lat", "lon", "lng", "latlon", "latlng", "latlong", "geolocation", "coordinates"}
_COORDINATES = re.compile(r"[nsew\W\d]*\d[nsew\W]+\d[nsew\W\d]*", re.ASCII | re.IGNORECASE)


def is_position(key: str, value: object) -> bool:
    """Whether a key tells of a place on Earth: "exif.GPSLatitude", "EXIF:GPSPosition", "photo_lat", "location.city".

    "location" alone may be a town's name; it is a position if it holds numbers and no words.
    """
    kind = _kind(key)
    if kind != "location":
        return kind == "position"
    written = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return len(written) < 100 and _COORDINATES.fullmatch(written) is not None


@functools.lru_cache(maxsize=4_096)  # the rows of a table have the same keys
def _kind(key: str) -> Literal["position", "location", "other"]:
    words = re.split(r"[\W_]+", key.lower())
    if _POSITION.search(key.lower()) or not _POSITION_WORDS.isdisjoint(words):
        return "position"
    return "location" if words[-1] == "location" else "other"
