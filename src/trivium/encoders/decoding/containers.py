"""Opening a video file: recognised by content, seen to be whole, and read by the one demuxer of its kind.

Of libavformat's some 350 demuxers these: matroska, mov, avi, asf, mpegts, mpeg and aac.
"""

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.sources import Source, as_file

if TYPE_CHECKING:
    from av.container import InputContainer

MAX_PIXELS = 40_000_000  # of one picture as it is coded; 8K has 33 million
MAX_STREAMS = "100"
MAX_BOXES = 200_000
READ_BYTES = 1 << 18
HEAD_BYTES = 1 << 16  # as far as a file is recognised: an ID3 tag may come first

MATROSKA = b"\x1a\x45\xdf\xa3"
BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
EMPTY_BOXES = (b"free", b"skip", b"wide")  # whatever is in them
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")  # Windows Media
PROGRAM_STREAM = b"\0\0\1\xba"  # of MPEG
TRANSPORT_PACKETS = ((0, 188), (4, 192))  # where in one its sync byte is, and its length; those of cameras have a time
TRANSPORT_SYNC = b"G"
PICTURE_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
# Of libavcodec's several hundred decoders, those that videos of these kinds are made for.
VIDEO_CODECS = {"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "prores"}
VIDEO_CODECS |= {"msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "wmv3", "vc1", "h263", "dvvideo"}
SOUND_CODECS = {
    *("aac", "mp3", "mp2", "opus", "vorbis", "flac", "alac", "ac3", "eac3", "pcm_mulaw", "pcm_alaw", "pcm_u8"),
    *("pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be"),
    *("pcm_bluray", "pcm_dvd", "wmav1", "wmav2", "wmapro", "amr_nb", "amr_wb"),
}
DECODERS = {
    "libdav1d",
    "msmpeg4",
    "mp3float",
    "mp2float",
    "libopus",
    "libvorbis",
    "amrnb",
    "amrwb",
    *VIDEO_CODECS,
    *SOUND_CODECS,
}


def require_pyav() -> None:
    """Refuse a video where the extra that brings PyAV is not installed.

    Raises:
        DecodeError: If so.
    """
    if importlib.util.find_spec("av") is None:
        raise DecodeError("needs trivium[video]: to read it, PyAV is needed (pip install 'trivium[video]')")


class Layout(NamedTuple):
    """What a file is made of, as far as it is seen without decoding."""

    demuxer: str
    missing: str  # nothing if it is not seen to be cut off
    tells_length: bool = True  # of the whole video, though it be cut off; else of the fragments that are there


def layout_of(data: Source) -> Layout:
    """Recognise a file, and see whether it is cut off.

    Raises:
        DecodeError: If it is of no kind that is read, or so cut off that nothing of it can be.
    """
    head = data[:HEAD_BYTES]
    if (demuxer := demuxer_of(head)) is None:
        raise DecodeError(
            "not a video: the content is neither MP4 nor QuickTime, WebM nor Matroska, AVI, Windows Media nor MPEG"
        )
    if demuxer == "matroska":
        return Layout(demuxer, _missing_of_matroska(data))
    if demuxer == "mov":
        return _layout_of_boxes(data)
    said = 8 + int.from_bytes(head[4:8], "little") if demuxer == "avi" else 0
    return Layout(demuxer, _lengths(said, data) if said > len(data) else "", demuxer in ("avi", "asf"))


def demuxer_of(head: bytes) -> str | None:
    """Recognise a file by its first `HEAD_BYTES`; None if it is of no kind that is read here."""
    if head[:4] == MATROSKA:
        return "matroska"
    if head[4:8] in BOXES and not (head[4:8] == b"ftyp" and head[8:12] in PICTURE_BRANDS):
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:16] == ASF:
        return "asf"
    if head[:4] == PROGRAM_STREAM:
        return "mpeg"
    if any(head[at : at + 1] == head[at + size : at + size + 1] == TRANSPORT_SYNC for at, size in TRANSPORT_PACKETS):
        return "mpegts"
    return "aac" if _is_adts(head) else None


def _is_adts(head: bytes) -> bool:
    """Whether it is AAC as it is streamed, maybe behind an ID3 tag, which MP3 has too."""
    if head[:3] == b"ID3" and len(head) > 10:
        size = functools.reduce(lambda value, byte: value << 7 | byte & 0x7F, head[6:10], 0)
        head = head[10 + size :]
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


@contextlib.contextmanager
def open_container(data: Source, kind: str) -> "Iterator[InputContainer]":
    """Open a file whose kind is known.

    Raises:
        av.FFmpegError: If it is damaged.
    """
    import av
    from av.container import InputContainer

    with av.open(
        as_file(data),
        format=kind,
        metadata_errors="replace",
        buffer_size=READ_BYTES,
        io_open=_no_other_file,
        container_options={
            "codec_whitelist": ",".join(sorted(DECODERS)),
            "format_whitelist": kind,  # also of what a demuxer finds inside, as AVI's does subtitles
            "max_streams": MAX_STREAMS,
        },
    ) as container:
        assert isinstance(container, InputContainer)
        yield container


def _no_other_file(*_: object) -> None:
    raise PermissionError("a video names another file, which is not opened")


@contextlib.contextmanager
def as_decode_errors() -> Iterator[None]:
    """Tell all that goes wrong with a video as a `DecodeError`, but for memory that runs out."""
    from av.error import FFmpegError

    try:
        yield
    except (DecodeError, MemoryError):
        raise
    except FFmpegError as error:
        raise DecodeError(f"damaged video: {error.strerror or error}") from error
    except Exception as error:
        raise DecodeError(f"damaged video: {error or type(error).__name__}") from error


def picture_stream(container: "InputContainer") -> Any:
    """Return the stream that is shown.

    Raises:
        DecodeError: If there is none that is read, or it has too many pixels.
    """
    from av.stream import Disposition

    unread: list[str] = []
    for stream in container.streams.video:
        if stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails):
            continue  # a cover
        if (codec := codec_of(stream)) not in VIDEO_CODECS:
            unread.append(codec)
            continue
        if stream.width * stream.height > MAX_PIXELS:
            raise too_many_pixels(stream)
        return stream
    if unread:
        raise DecodeError(f"a kind of video that is not read: {', '.join(unread)}")
    raise DecodeError("a video without pictures; if it is a sound, its name must say so (.m4a, .wma)")


def sound_stream(container: "InputContainer") -> Any:
    """Return the first sound track of a kind that is read, None if there is none."""
    return next((stream for stream in container.streams.audio if codec_of(stream) in SOUND_CODECS), None)


def packets_of(container: "InputContainer", stream: Any, on_end: Callable[[str], None] | None) -> Iterator[Any]:
    """Yield a stream's packets.

    Args:
        container: Open, from its beginning.
        stream: Of it.
        on_end: Told why they end before their end, and packets that are there in part are left out; None: that is an
            error.

    Raises:
        av.FFmpegError: If they cannot be read on, without ``on_end``.
    """
    from av.error import FFmpegError

    try:
        for packet in container.demux(stream):
            if on_end is None or not packet.is_corrupt:
                yield packet
    except FFmpegError as error:
        if on_end is None:
            raise
        on_end(f"damaged: {error.strerror or error}")


def codec_of(stream: Any) -> str:
    """Name a stream's codec, "unknown" if this PyAV has no decoder for it."""
    context = stream.codec_context
    return "unknown" if context is None else str(context.codec.canonical_name)


def seconds_of(container: "InputContainer", stream: Any, start: float) -> float:
    """Return how long a video is."""
    if container.duration is not None and container.duration > 0:
        return float(container.duration / 1e6)
    if stream.duration is not None and stream.duration > 0:
        return float(stream.duration * stream.time_base)
    # Recorders that stream leave it out: look through the packets.
    last = 0.0
    for packet in container.demux(stream):
        if packet.pts is not None:
            last = max(last, float((packet.pts + (packet.duration or 0)) * stream.time_base) - start)
    return last


def too_many_pixels(picture: Any) -> DecodeError:
    """Return the error that says so, of a stream or of one of its frames."""
    return DecodeError(f"too many pixels: {picture.width} x {picture.height}, the limit is {MAX_PIXELS:,}")


def _layout_of_boxes(data: Source) -> Layout:
    """Follow the outermost boxes of ISO/IEC 14496-12."""
    position, names, last = 0, set(), b""
    for _ in range(MAX_BOXES):
        head = data[position : position + 16]
        size, name = int.from_bytes(head[:4]), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:])
        if len(name) < 4 or not name.isalnum() or (size < 8 and size != 0):
            break  # the end, or something appended
        if position + size <= len(data):
            names.add(name)
        if size == 0:  # up to the end
            break
        position, last = position + size, name
    missing = _lengths(position, data) if position > len(data) and last not in EMPTY_BOXES else ""
    if b"moov" not in names:
        what = missing or "the recording was not finished?"
        raise DecodeError(f"truncated: there is no index of the video, and without it nothing can be read ({what})")
    return Layout("mov", missing, b"moof" not in names)


def _missing_of_matroska(data: Source) -> str:
    """Compare the size of the segment, which is all but the header, with the file's (RFC 8794)."""
    header, start = _vint(data, 4)
    if header is None or data[start + header : start + header + 4] != b"\x18\x53\x80\x67":
        raise DecodeError("damaged video: it has no readable header")
    size, start = _vint(data, start + header + 4)
    # None: a recorder that streamed.
    return _lengths(start + size, data) if size is not None and start + size > len(data) else ""


def _lengths(said: int, data: Source) -> str:
    return f"the header says {said:,} bytes, {len(data):,} are there"


def _vint(data: Source, position: int) -> tuple[int | None, int]:
    """Read a number of variable length, None if it is left open; return it and where it ends."""
    first = int.from_bytes(data[position : position + 1])
    length = 9 - first.bit_length()
    value = int.from_bytes(data[position : position + length]) & ((1 << 7 * length) - 1)
    is_open = length > 8 or value == (1 << 7 * length) - 1
    return None if is_open else value, position + length
