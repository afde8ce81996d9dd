"""Reading what a file says of itself, of any kind of media; called in the sandbox."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from trivium.encoders.decoding.sources import Source
from trivium.encoders.tags.words import Tags, bounded

MAX_PROBLEM = 300  # characters


@dataclass(frozen=True, slots=True)
class FileTags:
    """What a file says of itself, and sentences on what of that could not be read."""

    tags: Tags = field(default_factory=dict)
    problems: Sequence[str] = ()


def read_tags(modality: str, data: Source) -> FileTags:
    """Read what a file says of itself.

    Args:
        modality: image, audio or video.
        data: The file.

    Returns:
        Tags by our names (docs/metadata.md), bounded.

    Raises:
        MemoryError: If it takes too much.
    """
    try:
        found, problems = _READERS[modality](data)
    except MemoryError:
        raise
    except BaseException as error:  # what is wrong with the whole file, decoding it tells better
        return FileTags({}, [f"tags cannot be read: {str(error)[:MAX_PROBLEM] or type(error).__name__}"])
    tags, left_out = bounded(found)
    problems = [problem[:MAX_PROBLEM] for problem in problems]
    if left_out:
        problems.append(f"too long, and left out: {', '.join(left_out)}")
    return FileTags(tags, problems)


def _picture(data: Source) -> tuple[Tags, list[str]]:
    from trivium.encoders.tags.pictures import picture_tags

    return picture_tags(data)


def _sound(data: Source) -> tuple[Tags, list[str]]:
    from trivium.encoders.decoding.containers import HEAD_BYTES, demuxer_of

    if demuxer_of(data[:HEAD_BYTES]) is not None:
        return _video(data)
    from trivium.encoders.tags.sounds import sound_tags

    return sound_tags(data)


def _video(data: Source) -> tuple[Tags, list[str]]:
    from trivium.encoders.tags.videos import video_tags

    return video_tags(data)


# Each brings its libraries, of which a worker has those of its kind.
_READERS: Mapping[str, Callable[[Source], tuple[Tags, list[str]]]] = {
    "image": _picture,
    "audio": _sound,
    "video": _video,
}
