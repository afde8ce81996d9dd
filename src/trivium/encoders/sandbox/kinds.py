"""Kinds of files by the libraries that decode them: a worker has those of its kind, loaded before it is locked."""

import contextlib
import importlib
import os
from typing import Literal, TypeAlias, get_args

from trivium.encoders.base import Modality
from trivium.encoders.decoding.containers import HEAD_BYTES, demuxer_of
from trivium.encoders.decoding.sounds import decode_audio

DecodeKind: TypeAlias = Literal["picture", "heif", "drawing", "sound", "video", "document", "raw"]
KINDS: tuple[DecodeKind, ...] = get_args(DecodeKind)
MediaKind: TypeAlias = Modality | Literal["video"]

# With what they import only when a file needs it: a locked worker can import nothing.
PICTURES = (
    *("PIL.BmpImagePlugin", "PIL.GifImagePlugin", "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.TiffImagePlugin"),
    *("PIL.PpmImagePlugin", "PIL.WebPImagePlugin", "PIL.MpoImagePlugin", "PIL.ImageOps"),
    *("trivium.encoders.tags.pictures", "encodings.utf_16_le", "encodings.cp1252", "encodings.latin_1"),
)
AV = ("av", "av.subtitles.codeccontext", "av.subtitles.stream")
MODULES: dict[DecodeKind, tuple[str, ...]] = {
    "picture": PICTURES,
    "heif": (*PICTURES, "PIL.AvifImagePlugin", "pillow_heif"),
    "drawing": (*PICTURES, "resvg_py", "encodings.utf_8_sig"),
    "sound": ("soundfile", "trivium.encoders.tags.sounds", "encodings.cp1252"),
    "video": (
        *(
            "trivium.encoders.decoding.videos",
            "trivium.encoders.tags.videos",
            "trivium.encoders.tags.sounds",
            "encodings.cp1252",
        ),
        *("PIL.ImageFile", *AV),
    ),
    "document": (
        *("trivium.encoders.decoding.documents", "encodings.cp437", "encodings.utf_16_le"),
        *("pypdfium2", "pypdfium2.raw", "docx", "docx.oxml.ns"),
    ),
    "raw": (*PICTURES, "rawpy"),
}
READS_FONTS: tuple[DecodeKind, ...] = ("drawing",)
# PyAV's scaler and libde265, which cannot be told otherwise in all versions.
STARTS_THREADS: tuple[DecodeKind, ...] = ("heif", "video")
# A WAV of one sample.
SILENCE = b"RIFF\x26\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\2\0\0\0\0\0"


def kind_of(modality: MediaKind, data: bytes | int) -> DecodeKind:
    """Return which libraries a file takes, by its modality and its first bytes."""
    if modality == "video":
        return "video"
    if modality == "text":
        return "document"
    if isinstance(data, int):
        data = os.pread(data, HEAD_BYTES, 0)
    if modality != "image":
        return "sound" if demuxer_of(data[:HEAD_BYTES]) is None else "video"
    from trivium.encoders.decoding.pictures import brands_of, is_svg  # brings Pillow
    from trivium.encoders.decoding.raw_pictures import is_raw

    if is_svg(data):
        return "drawing"
    if is_raw(data):
        return "raw"
    return "heif" if brands_of(data) else "picture"


def load_libraries(kind: DecodeKind) -> None:
    """Import all that decoding a kind of file takes, as far as it is installed."""
    for name in MODULES[kind]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if kind == "sound":
        # soundfile's callbacks take a page of memory that can be executed, which a locked process gets no more of.
        decode_audio(SILENCE)
