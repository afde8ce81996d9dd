"""What videos say of themselves: tags that FFmpeg writes, as phones and cameras name them."""

import io
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from trivium.encoders.tags.reading import read_tags
from trivium.encoders.tags.videos import video_tags

SCENES = (("red", 1.0),)


@pytest.fixture
def video(reference: Callable[[str], ModuleType]) -> Callable[..., bytes]:
    pytest.importorskip("av")
    made: Callable[..., bytes] = reference("videos").video
    return made


def test_tags_of_a_film(video: Callable[..., bytes]) -> None:
    tags = {"title": "The sea", "artist": "Ann", "album": "Trips", "genre": "Documentary", "comment": "cut 2",
            "description": "Waves at night", "date": "2019", "keywords": "sea, night", "copyright": "Ann"}  # fmt: skip
    for kind in ("mp4", "mkv"):
        found, problems = video_tags(video(kind, scenes=SCENES, tags=tags))
        assert problems == []
        assert found == {
            "width": 64, "height": 48, "seconds": 1, "title": "The sea", "artist": "Ann", "album": "Trips",
            "genre": "Documentary", "comment": "cut 2", "description": "Waves at night", "year": 2019,
            "keywords": ["sea", "night"], "copyright": "Ann",
        }  # fmt: skip


def test_tags_of_a_phone(video: Callable[..., bytes]) -> None:
    told = {
        "make": "Apple",
        "model": "iPhone 12",
        "creationdate": "2021-05-01T12:30:00+0200",
        "location.ISO6709": "+48.8566+002.3522+035.000/",
    }
    tags = {f"com.apple.quicktime.{name}": text for name, text in told.items()}
    tags["creation_time"] = "2021-05-01T10:30:00.000000Z"
    found, _ = video_tags(video("mov", scenes=SCENES, tags=tags))
    assert found == {
        "width": 64, "height": 48, "seconds": 1, "camera": "Apple iPhone 12", "taken": "2021-05-01T12:30:00",
        "taken_offset": "+02:00", "year": 2021, "latitude": 48.8566, "longitude": 2.3522, "gps_altitude": 35,
    }  # fmt: skip


def test_a_time_of_greenwich_says_so(video: Callable[..., bytes]) -> None:
    found, _ = video_tags(video("mp4", scenes=SCENES, tags={"creation_time": "2021-05-01T10:30:00.000000Z"}))
    assert (found["taken"], found["taken_offset"]) == ("2021-05-01T10:30:00", "+00:00")


def test_what_cannot_be_opened_says_so() -> None:
    told = read_tags("video", b"no video")
    assert told.tags == {}
    (problem,) = told.problems
    assert problem.startswith("tags cannot be read: not a video: the content is neither MP4 nor QuickTime")


def test_a_sound_in_a_container_of_videos() -> None:
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="ipod") as container:
        container.metadata.update({"title": "Song", "artist": "Ann", "genre": "Folk", "date": "1999"})
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44_100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux([*stream.encode(frame), *stream.encode(None)])
    told = read_tags("audio", buffer.getvalue())
    assert told.problems == []
    assert told.tags.pop("seconds") == pytest.approx(1, abs=0.1)
    assert told.tags == {"title": "Song", "artist": "Ann", "genre": "Folk", "year": 1999}
