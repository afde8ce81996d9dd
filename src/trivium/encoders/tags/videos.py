"""What videos say of themselves: the tags of their container, by PyAV."""

from typing import Any

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.containers import (
    as_decode_errors,
    layout_of,
    open_container,
    picture_stream,
    require_pyav,
)
from trivium.encoders.decoding.sources import Source
from trivium.encoders.tags.words import (
    Tags,
    meant,
    put_camera,
    put_iso_6709,
    put_list,
    put_number,
    put_text,
    put_time,
    put_year,
    text_of,
)

APPLE, ANDROID = "com.apple.quicktime.", "com.android."
MAX_TAGS = 1_000


def video_tags(data: Source) -> tuple[Tags, list[str]]:
    """Read what a video says of itself; see `picture_tags`.

    Raises:
        DecodeError: If it cannot be opened.
    """
    require_pyav()
    tags: Tags = {}
    with as_decode_errors(), open_container(data, layout_of(data).demuxer) as container:
        found = {name.lower(): text_of(value) for name, value in list(container.metadata.items())[:MAX_TAGS]}
        if container.duration is not None and container.duration > 0:
            put_number(tags, "seconds", round(container.duration / 1e6, 3))
        _take_size(tags, container)
    _take(tags, found)
    return tags, []


def _take_size(tags: Tags, container: Any) -> None:
    try:
        stream = picture_stream(container)
    except DecodeError:  # which says so when it is decoded
        return
    put_number(tags, "width", stream.width, least=1)
    put_number(tags, "height", stream.height, least=1)


def _take(tags: Tags, found: dict[str, str]) -> None:
    def first(*names: str) -> str:
        return next((found[name] for name in names if found.get(name)), "")

    put_time(tags, first(f"{APPLE}creationdate"))
    put_time(tags, first("creation_time"))
    put_time(tags, first("date"))
    put_year(tags, first("date", "date_released", "year"))
    put_camera(
        tags,
        first(f"{APPLE}make", f"{ANDROID}manufacturer", "make"),
        first(f"{APPLE}model", f"{ANDROID}model", "model"),
    )
    put_text(tags, "title", meant(first("title", f"{APPLE}title", f"{APPLE}displayname")))
    put_text(tags, "description", meant(first("description", f"{APPLE}description", "synopsis")))
    put_text(tags, "artist", first("artist", f"{APPLE}artist", f"{APPLE}author", "author", "album_artist"))
    put_text(tags, "album", first("album", f"{APPLE}album"))
    put_text(tags, "genre", first("genre", f"{APPLE}genre"))
    put_text(tags, "comment", first("comment", f"{APPLE}comment"))
    put_text(tags, "copyright", first("copyright", f"{APPLE}copyright"))
    keywords = first("keywords", f"{APPLE}keywords").replace(";", ",").split(",")
    put_list(tags, "keywords", (word.strip() for word in keywords))
    put_iso_6709(tags, first(f"{APPLE}location.iso6709", "location", "location-eng"))
