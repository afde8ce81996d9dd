"""A file with what lies beside it: its caption and its sidecar, and what it says of itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trivium.encoders.base import DecodeError, SandboxError, UnreadableError
from trivium.encoders.decoding.texts import decode_text, first_line
from trivium.encoders.files.reading import read_file
from trivium.encoders.tags.reading import FileTags
from trivium.pipeline.ingest.contents import LoadedContents, reason_of
from trivium.pipeline.ingest.loading import Loader
from trivium.pipeline.ingest.scanning import MediaFile, Problem, fingerprint_beside, lasting_fingerprint
from trivium.pipeline.records import ContentKey, ItemKind, Part
from trivium.pipeline.tables.metadata import MAX_BYTES as MAX_SIDECAR_BYTES
from trivium.pipeline.tables.metadata import Metadata, MetadataError, encode, read_sidecar, told
from trivium.pipeline.tables.own import own_caption, own_metadata

MAX_CAPTION_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedFile:
    """A file read, hashed and decoded."""

    file: MediaFile
    fingerprint: str
    beside: str
    contents: LoadedContents
    caption: str | None
    sidecar: Metadata
    own: str | None  # what it says of itself, JSON; None of a text
    problems: Sequence[Problem] = ()  # with what lies beside it
    notes: Sequence[Problem] = ()  # on what of that was left out


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedFile:
    """A file that could not be read or decoded."""

    file: MediaFile
    reason: str
    was_read: bool  # its bytes are known, and hold nothing that can be indexed
    contents: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLoading:
    """How a run loads its files.

    Args:
        embeds_captions: Whether captions become vectors too, for kinds that have any but their own text.
        positions: Whether where a file was made is kept, as far as a sidecar says so.
        windows: Seconds of the stretches that sounds get vectors of, 0 for none; None: as `window_seconds` has it.
    """

    embeds_captions: bool
    positions: bool
    windows: float | None

    def embeds_captions_of(self, kind: ItemKind) -> bool:
        """Whether a file of a kind has its caption's vector too."""
        return self.embeds_captions and kind != "text"

    def load(
        self, file: MediaFile, loader: Loader, *, known: Mapping[str, ContentKey] | None = None
    ) -> LoadedFile | FailedFile:
        """Read and decode a file, its caption and its sidecar.

        Args:
            file: Where it lies.
            loader: Of its contents.
            known: What it holds, by role, if only its tags are to be read; unless it has changed since it was seen.
        """
        was_read = False
        try:
            # Looked at before the bytes are: a change in between shows as a changed file next time.
            state = lasting_fingerprint(file.path)
            beside = fingerprint_beside((file.caption_path, file.sidecar_path), lasting_fingerprint)
            opened = loader.opened(file.path, file.modality)
            was_read = True
            if known and state == file.fingerprint:
                contents = loader.tags(file.modality, opened, known)
                contents.roles.pop(Part("caption").role, None)
            else:
                contents = loader.contents(file.modality, opened, windows=self.windows)
            problems: list[Problem] = []
            notes: list[Problem] = []
            caption, sidecar = _load_caption(file, problems), self._load_sidecar(file, problems, notes)
            own = None
            if file.modality == "text":
                caption = contents.first_line
            else:
                own = self._own(file, contents.tags or FileTags(), notes)
                caption = caption or own_caption(own, file.path)
            if file.modality != "text" and caption is not None and self.embeds_captions_of(file.modality):
                loader.caption(caption, contents)
        except (DecodeError, MemoryError) as error:
            was_read = was_read and not isinstance(error, UnreadableError)
            return FailedFile(file=file, reason=reason_of(error), was_read=was_read)
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
            own=None if own is None else encode(own),
            problems=problems,
            notes=notes,
        )

    def _own(self, file: MediaFile, tags: FileTags, notes: list[Problem]) -> Metadata:
        own, left_out = own_metadata(tags, positions=self.positions)
        problems = [*tags.problems, *([told(left_out)] if left_out else [])]
        notes += [Problem(path=file.path, reason=problem) for problem in problems]
        return own

    def _load_sidecar(self, file: MediaFile, problems: list[Problem], notes: list[Problem]) -> Metadata:
        if file.sidecar_path is None:
            return {}
        try:
            data = read_file(file.sidecar_path, max_bytes=MAX_SIDECAR_BYTES)
            left_out: list[str] = []
            sidecar = read_sidecar(data, positions=self.positions, left_out=left_out)
        except (DecodeError, MetadataError) as error:
            problems.append(Problem(path=file.sidecar_path, reason=f"metadata left out: {error}"))
            return {}
        if left_out:
            notes.append(Problem(path=file.sidecar_path, reason=told(left_out)))
        return sidecar


def _load_caption(file: MediaFile, problems: list[Problem]) -> str | None:
    if file.caption_path is None:
        return None
    try:
        return first_line(decode_text(read_file(file.caption_path, max_bytes=MAX_CAPTION_FILE_BYTES)))
    except DecodeError as error:
        problems.append(Problem(path=file.caption_path, reason=f"caption left out: {error.reason}"))
        return None
