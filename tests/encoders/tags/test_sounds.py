"""What sounds say of themselves: written by libsndfile, and a field recorder's chunk."""

import struct

import pytest

from tagged_media import SOUND_TAGS, sound
from trivium.encoders.tags.reading import read_tags
from trivium.encoders.tags.sounds import sound_tags


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_tags_of_every_format(kind: str) -> None:
    found, problems = sound_tags(sound(kind, SOUND_TAGS))
    assert problems == []
    seconds = found.pop("seconds")
    assert str(found.pop("date")).startswith("1999")  # of ID3 libsndfile may write the year alone
    assert seconds == pytest.approx(1.5, abs=0.2)  # frames of MP3 are whole ones
    assert found == {
        "title": "Über den Wolken",
        "artist": "Ann",
        "album": "Clouds",
        "genre": "Folk",
        "year": 1999,
        "track": 3,
        "comment": "live",
    }


def test_without_tags_its_length_is_known() -> None:
    assert sound_tags(sound()) == ({"seconds": 1.5}, [])


def test_a_field_recorders_chunk() -> None:
    bext = b"Dawn chorus, pond".ljust(256, b"\0") + b"Recorder X".ljust(32, b"\0") + bytes(32) + b"2021-05-0604:30:05"
    bext = bext.ljust(602, b"\0")
    plain = sound()
    data = plain[:12] + b"bext" + struct.pack("<I", len(bext)) + bext + plain[12:]
    data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    assert sound_tags(data)[0] == {
        "seconds": 1.5,
        "description": "Dawn chorus, pond",
        "recorder": "Recorder X",
        "taken": "2021-05-06T04:30:05",
        "year": 2021,
    }


def test_what_cannot_be_opened_says_so() -> None:
    told = read_tags("audio", b"RIFF" + bytes(40))
    assert told.tags == {}
    assert told.problems[0].startswith("tags cannot be read: ")
