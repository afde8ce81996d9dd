"""One file of a collection with what lies beside it: read, hashed and decoded."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trivium.encoders.base import DecodeError, SandboxError, UnreadableError
from trivium.encoders.decoding.texts import decode_text, first_line
from trivium.encoders.files.reading import open_file, read_file
from trivium.pipeline.ingest.loading import LoadedContents, Loader
from trivium.pipeline.ingest.scanning import MediaFile, Problem, fingerprint, fingerprint_beside
from trivium.pipeline.records import ItemKind
from trivium.pipeline.tables.metadata import MAX_BYTES as MAX_SIDECAR_BYTES
from trivium.pipeline.tables.metadata import Metadata, MetadataError, read_sidecar

# A text is read whole for its first 256 tokens; the largest scans have some hundred MB; a day of lossless sound 16 GB.
MAX_FILE_BYTES: Mapping[ItemKind, int] = {"text": 64 << 20, "image": 512 << 20, "audio": 16 << 30, "video": 64 << 30}
MAX_CAPTION_FILE_BYTES = 1 << 20
# A file changed this shortly before it was read may change again without its times telling (FAT counts in 2 s).
FRESH_NS = 2_000_000_000
FRESH = "fresh"  # stands for the fingerprint of such a file, and equals none


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedFile:
    """A file read, hashed and decoded."""

    file: MediaFile
    fingerprint: str
    beside: str
    contents: LoadedContents
    caption: str | None
    sidecar: Metadata
    problems: Sequence[Problem] = ()  # with what lies beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedFile:
    """A file that could not be read or decoded."""

    file: MediaFile
    reason: str
    was_read: bool  # its bytes are known, and hold nothing that can be indexed


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLoading:
    """How a run loads its files.

    Args:
        embeds_captions: Whether captions become vectors too, for kinds that have any but their own text.
        positions: Whether where a file was made is kept, as far as a sidecar says so.
        windows: Seconds of the stretches that sounds get vectors of; None for none.
    """

    embeds_captions: bool
    positions: bool
    windows: float | None

    def embeds_captions_of(self, kind: ItemKind) -> bool:
        """Whether a file of a kind has its caption's vector too."""
        return self.embeds_captions and kind != "text"

    def load(self, file: MediaFile, loader: Loader) -> LoadedFile | FailedFile:
        """Read and decode a file, its caption and its sidecar."""
        was_read = False
        try:
            # Looked at before the bytes are: a change in between shows as a changed file next time.
            state = _lasting_fingerprint(file.path)
            beside = fingerprint_beside((file.caption_path, file.sidecar_path), _lasting_fingerprint)
            opened = open_file(file.path, max_bytes=MAX_FILE_BYTES[file.modality])
            was_read = True
            contents = loader.contents(file.modality, opened, windows=self.windows)
            problems: list[Problem] = []
            caption, sidecar = _load_caption(file, problems), self._load_sidecar(file, problems)
            if file.modality == "text":
                caption = contents.first_line
            elif caption is not None and self.embeds_captions_of(file.modality):
                loader.caption(caption, contents)
        except UnreadableError as error:
            return FailedFile(file=file, reason=error.reason, was_read=False)
        except DecodeError as error:
            return FailedFile(file=file, reason=error.reason, was_read=was_read)
        except MemoryError:
            return FailedFile(file=file, reason="too large for this machine's memory", was_read=was_read)
        except SandboxError:
            raise  # of all files
        except (RuntimeError, IndexError) as error:  # torch has no MemoryError; and a bad file never stops a run
            if "new thread" in str(error):
                raise
            return FailedFile(
                file=file, reason=f"cannot be prepared: {' '.join(str(error).split())}", was_read=was_read
            )
        return LoadedFile(
            file=file,
            fingerprint=state,
            beside=beside,
            contents=contents,
            caption=caption,
            sidecar=sidecar,
            problems=problems,
        )

    def _load_sidecar(self, file: MediaFile, problems: list[Problem]) -> Metadata:
        if file.sidecar_path is None:
            return {}
        try:
            data = read_file(file.sidecar_path, max_bytes=MAX_SIDECAR_BYTES)
            return read_sidecar(data, positions=self.positions)
        except (DecodeError, MetadataError) as error:
            problems.append(Problem(path=file.sidecar_path, reason=f"metadata left out: {error}"))
            return {}


def _load_caption(file: MediaFile, problems: list[Problem]) -> str | None:
    if file.caption_path is None:
        return None
    try:
        return first_line(decode_text(read_file(file.caption_path, max_bytes=MAX_CAPTION_FILE_BYTES)))
    except DecodeError as error:
        problems.append(Problem(path=file.caption_path, reason=f"caption left out: {error.reason}"))
        return None


def _lasting_fingerprint(path: str) -> str:
    """Fingerprint that will tell any later change, or `FRESH` if the file is too fresh for that."""
    try:
        status = os.lstat(path)
    except OSError:
        return FRESH
    is_fresh = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < FRESH_NS
    return FRESH if is_fresh else fingerprint(status)
