"""What sounds say of themselves: ID3, Vorbis comments and RIFF's INFO by libsndfile, and a recorder's bext chunk."""

import re
from typing import Any

from trivium.encoders.decoding.sound_ends import MAX_WAVE_CHUNKS
from trivium.encoders.decoding.sounds import UNKNOWN_FRAMES
from trivium.encoders.decoding.sources import Source, as_file
from trivium.encoders.tags.words import Tags, meant, put_number, put_text, put_time, put_year, text_of

_BEXT_BYTES = 602  # of EBU Tech 3285, without the coding history


def sound_tags(data: Source) -> tuple[Tags, list[str]]:
    """Read what a sound says of itself; see `picture_tags`.

    Raises:
        Exception: If it cannot be opened.
    """
    import soundfile  # loads a library, which those who never meet a sound need not wait for

    tags: Tags = {}
    file: Any = as_file(data)
    with soundfile.SoundFile(file) as sound:
        found = {name: text_of(text) for name, text in sound.copy_metadata().items()}
        if 0 < sound.frames < UNKNOWN_FRAMES and sound.samplerate > 0:
            put_number(tags, "seconds", round(sound.frames / sound.samplerate, 3))
    put_text(tags, "title", meant(found.get("title", "")))
    for name in ("artist", "album", "genre", "comment", "copyright", "license"):
        put_text(tags, name, found.get(name, ""))
    put_text(tags, "date", found.get("date", ""))
    put_year(tags, found.get("date", ""))
    if track := re.match(r"\d{1,4}", found.get("tracknumber", "")):  # "3/12" is the third
        put_number(tags, "track", track[0])
    _take_bext(tags, _bext(data))
    return tags, []


def _bext(data: Source) -> bytes:
    """Return the chunk of a WAV file that recorders write, empty if there is none."""
    if data[:4] not in (b"RIFF", b"RF64") or data[8:12] != b"WAVE":
        return b""
    position = 12
    for _ in range(MAX_WAVE_CHUNKS):
        name, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8
        if name == b"bext":
            return data[position : position + min(size, _BEXT_BYTES)]
        position += size + size % 2
    return b""


def _take_bext(tags: Tags, chunk: bytes) -> None:
    """Take what a field recorder writes: description, originator, reference, date, time."""
    description, recorder, date, time = (
        text_of(chunk[start:stop].split(b"\0")[0]) for start, stop in ((0, 256), (256, 288), (320, 330), (330, 338))
    )
    put_text(tags, "description", meant(description))
    put_text(tags, "recorder", recorder)
    put_time(tags, f"{date.replace('_', '-')}T{re.sub('[-._]', ':', time)}")
