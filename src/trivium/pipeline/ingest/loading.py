"""Files to what the encoders take: which vectors a file has, what each is made from, and what lies beside it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import DecodeError, Encoder, Modality, Passage, Prepared
from trivium.encoders.batching import decoded_source
from trivium.encoders.decoding.sounds import Sound
from trivium.encoders.decoding.texts import first_line
from trivium.encoders.engine import Stats
from trivium.encoders.files import stopping
from trivium.encoders.files.reading import OpenedFile
from trivium.encoders.files.stopping import ByteBudget
from trivium.encoders.machine import usable_cores
from trivium.encoders.sandbox.heads import HEAD_BYTES, MAX_HELD_BYTES, require_filled, require_known_head
from trivium.encoders.sandbox.kinds import MediaKind
from trivium.encoders.sandbox.pool import DecodeSandbox, OnTags
from trivium.encoders.sandbox.streams import SoundStream
from trivium.encoders.tags.reading import FileTags
from trivium.encoders.text.backbone import MAX_DOCUMENT_CHARACTERS, MAX_PASSAGES
from trivium.pipeline.ingest.contents import Claims, LoadedContents, WindowedSound
from trivium.pipeline.ingest.sources import Source, open_media, seconds_of, streamed
from trivium.pipeline.ingest.windows import USUAL_SECONDS, window_seconds, windows_of
from trivium.pipeline.records import ContentKey, ItemKind, Part, Traits, content_key, part_key
from trivium.pipeline.space.joint import JointSpace

HELD_TOGETHER_BYTES = 256 << 20  # by all threads that load
TOGETHER = 256  # texts that are tokenized in one call
MAX_KNOWN_TAGS = 1_000  # files, of some kB at most


class Loader:
    """Loads files for the encoders of a space; safe to use from several threads."""

    def __init__(
        self,
        space: JointSpace,
        sandbox: DecodeSandbox,
        claims: Claims,
        *,
        stats: Stats,
        partial: bool = True,
        reads_tags: bool = False,
        look: Callable[[NDArray[np.uint8]], Traits] = lambda _: Traits(),
        seconds_of: Callable[[ContentKey], float | None] = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            space: Whose encoders.
            sandbox: Where files are decoded.
            claims: Which contents need vectors.
            stats: Where stages are counted.
            partial: Whether what is there is taken of a file that is cut off, with a note; else it is refused.
            reads_tags: Whether what files say of themselves is read too.
            look: Tells what else is kept of a picture, of its pixels (h, w, 3).
            seconds_of: Tells how long a sound is that is known.
        """
        self._partial = partial
        self._look = look
        self._seconds_of = seconds_of
        self._space = space
        self._reads_tags = reads_tags
        self._known_tags: dict[bytes, FileTags] = {}  # of equal files of this run, which are decoded once
        self._sandbox = sandbox
        self._claims = claims
        self._budget = ByteBudget(HELD_TOGETHER_BYTES)
        self._reading, self._decoding, self._preparing = (
            stats.stage(name, workers=usable_cores()) for name in ("read", "decode", "prepare")
        )

    def opened(self, path: str, kind: ItemKind) -> OpenedFile:
        """Open a file that is no larger than those of its kind may be.

        Raises:
            DecodeError: If it is, or cannot be opened.
        """
        return open_media(path, kind, self._sandbox.limits)

    def contents(
        self,
        kind: ItemKind,
        file: OpenedFile,
        *,
        windows: float | None = None,
        parts: Sequence[Part] | None = None,
        expected_sha256: bytes | None = None,
    ) -> LoadedContents:
        """Load a file.

        Args:
            kind: What it is.
            file: Belongs to the contents from now on: a long sound is read when it is encoded.
            windows: Seconds of a sound's windows, 0 for none; None: as `window_seconds` has it.
            parts: The parts that it has, where that is known from before; else they are found.
            expected_sha256: What it must hold.

        Raises:
            DecodeError: If it cannot be read or decoded, or does not hold what is expected.
            StoppedError: If the thread's work is stopped.
        """
        loaded = None
        # A text is taken apart here; other large files are read by the decoder itself.
        is_held = file.size <= MAX_HELD_BYTES or kind == "text"
        try:
            if not is_held:
                require_known_head(kind, file.head(HEAD_BYTES))
                require_filled(file.descriptor, file.status)
            with self._budget.holding(file.size if is_held else 0):
                source = self._read(file, is_held)
                if expected_sha256 is not None and source.sha256 != expected_sha256:
                    raise DecodeError("the file has changed since it was indexed: index it again first")
                if kind == "text":
                    loaded = self._text(source, parts)
                elif kind == "image":
                    loaded = self._image(source)
                elif kind == "video":
                    loaded = self._video(source, windows, parts)
                else:
                    loaded = self._sound(source, windows, parts)
                if self._reads_tags and kind != "text":
                    self._take_tags(kind, source, loaded)
            return loaded
        finally:
            if loaded is None or not loaded.reads_on:
                file.close()

    def tags(self, kind: ItemKind, file: OpenedFile, contents: Mapping[str, ContentKey]) -> LoadedContents:
        """Read what a file says of itself and no more; its contents are known. It is closed."""
        assert kind != "text"
        try:
            return LoadedContents(roles=dict(contents), tags=self._sandbox.tags(kind, file.descriptor))
        finally:
            file.close()

    def _take_tags(self, kind: MediaKind, source: Source, loaded: LoadedContents) -> None:
        """Read a file's tags, if it was not decoded, or by a GPU: else they came with what was."""
        if loaded.tags is None:
            known = self._known_tags.get(source.sha256)
            loaded.tags = self._sandbox.tags(kind, source.data_or_descriptor) if known is None else known
        if len(self._known_tags) >= MAX_KNOWN_TAGS:
            self._known_tags.clear()
        self._known_tags[source.sha256] = loaded.tags

    def _read(self, file: OpenedFile, is_held: bool) -> Source:
        with self._reading.working():
            stopping.check()
            data = file.read() if is_held else None
            return Source(file, data, file.sha256() if data is None else content_key("text", data).sha256)

    def caption(self, caption: str, loaded: LoadedContents) -> None:
        """Add the vector of a caption."""
        key = content_key("text", caption.encode("utf-8", "surrogateescape"))
        loaded.roles[Part("caption").role] = key
        if self._claims.claim(key):
            loaded.prepared[key] = self._space.encoder("text").prepare(caption)

    def _text(self, source: Source, parts: Sequence[Part] | None) -> LoadedContents:
        encoder = self._space.encoder("text")
        assert source.data is not None  # a text is held
        with self._decoding.working():
            # One more tells that there are more.
            text = self._sandbox.text(source.data, most=MAX_DOCUMENT_CHARACTERS + 1)
        loaded = LoadedContents(first_line=first_line(text))
        with self._preparing.working():
            own, is_new = self._own(loaded, "text", source)
            if is_new:
                loaded.prepared[own] = encoder.prepare(text)
            if parts is None:
                found = encoder.passages(text)
                passages = [(Part("passage", p.start, p.stop), p.prepared) for p in found]
                loaded.note = _note_of(text, found)
            else:  # another encoder's passages
                known = [part for part in parts if part.kind == "passage"]
                passages = list(zip(known, _prepared(encoder, text, known), strict=True))
            for part, prepared in passages:
                key = _add(loaded, "text", part, source.sha256)
                if self._claims.claim(key):
                    loaded.prepared[key] = prepared
        return loaded

    def _image(self, source: Source) -> LoadedContents:
        encoder = self._space.encoder("image")
        loaded = LoadedContents()
        own, is_new = self._own(loaded, "image", source)
        if is_new:
            with self._decoding.working():
                content = decoded_source(
                    encoder,
                    source.data_or_descriptor,
                    self._sandbox,
                    on_device=True,
                    partial=self._partial,
                    note=loaded.add_note,
                    on_tags=self._on_tags(loaded),
                )
            source.file.require_unchanged()
            with self._preparing.working():
                loaded.prepared[own] = encoder.prepare_file(content)
                if isinstance(content, np.ndarray) and content.ndim == 3:  # else the device decodes it
                    loaded.traits[own] = self._look(content)
        return loaded

    def _sound(self, source: Source, windows: float | None, parts: Sequence[Part] | None) -> LoadedContents:
        encoder = self._space.encoder("audio")
        loaded = LoadedContents()
        own, is_new = self._own(loaded, "audio", source)
        if not parts and not is_new:
            known = self._seconds_of(own)
            if windows == 0 or (known is not None and window_seconds(windows, known) is None):
                return loaded
        with self._decoding.working():
            sound = self._sandbox.sound(
                source.data_or_descriptor,
                partial=self._partial,
                note=loaded.add_note,
                on_tags=self._on_tags(loaded),
            )
        seconds = seconds_of(sound)
        loaded.traits[own] = Traits(seconds=seconds)
        wanted = window_seconds(windows, seconds)
        spans = _spans(parts) if parts is not None else windows_of(seconds, wanted, note=loaded.add_note)
        self._preparing.add(0.0)  # one file, whatever is made of it
        if spans or isinstance(sound, SoundStream):
            self._take_sound(loaded, source, sound, spans, whole=own if is_new else None)
        elif is_new:
            with self._preparing.working(0):
                loaded.prepared[own] = encoder.prepare(sound)
        return loaded

    def _video(self, source: Source, windows: float | None, parts: Sequence[Part] | None) -> LoadedContents:
        """Load a video: its pictures, the mean of their vectors as its own, and windows of its sound track."""
        encoder = self._space.encoder("image")
        loaded = LoadedContents()
        own, is_new = self._own(loaded, "image", source)

        def prepare(pixels: NDArray[np.uint8]) -> tuple[Prepared, Traits]:
            with self._decoding.paused(), self._preparing.working(0):
                return encoder.prepare(pixels), self._look(pixels)

        with self._decoding.working():
            video = self._sandbox.video(
                source.data_or_descriptor,
                prepare,
                side=encoder.side,
                partial=self._partial,
                note=loaded.add_note,
                on_tags=self._on_tags(loaded),
            )
        self._preparing.add(0.0)  # one file, however many pictures
        loaded.traits[own] = Traits(seconds=video.seconds)
        for seconds, (prepared, traits) in video.frames:
            key = _add(loaded, "image", Part("frame", round(seconds, 3)), source.sha256)
            # Only together with its own vector: a copy that is loaded meanwhile makes none of them.
            if is_new and self._claims.claim(key):
                loaded.prepared[key] = prepared
                loaded.traits[key] = traits
        if is_new:
            loaded.means[own] = list(loaded.prepared)
        if video.sound is not None and "audio" in self._space.modalities:
            seconds = seconds_of(video.sound)
            if parts is not None:
                spans = _spans(parts)
            else:
                found = windows_of(seconds, windows or USUAL_SECONDS, note=loaded.add_note)
                spans = found or [(0.0, round(seconds, 3))]
            self._take_sound(loaded, source, video.sound, spans, whole=None)
        elif isinstance(video.sound, SoundStream):
            video.sound.close()
        return loaded

    def _on_tags(self, loaded: LoadedContents) -> OnTags | None:
        return partial(setattr, loaded, "tags") if self._reads_tags else None

    def _own(self, loaded: LoadedContents, modality: Modality, source: Source) -> tuple[ContentKey, bool]:
        """Give a file a vector of its own; return also whether that has to be made."""
        own = _add(loaded, modality, Part("content"), source.sha256)
        return own, self._claims.claim(own)

    def _take_sound(
        self,
        loaded: LoadedContents,
        source: Source,
        sound: Sound | SoundStream,
        windows: Sequence[tuple[float, float]],
        *,
        whole: ContentKey | None,
    ) -> None:
        """Have the vectors of a sound and its windows made, as far as they are wanted."""
        encoder = self._space.encoder("audio")
        window_keys = [_add(loaded, "audio", Part("window", *span), source.sha256) for span in windows]
        keys = [whole, *(key if self._claims.claim(key) else None for key in window_keys)]
        if not any(keys):
            if isinstance(sound, SoundStream):
                sound.close()
        elif isinstance(sound, SoundStream):  # prepared as it is encoded
            loaded.sounds.append(WindowedSound(streamed(encoder, sound, source.file), windows, keys))
            loaded.reads_on = True
        else:
            with self._preparing.working(0):
                loaded.sounds.append(WindowedSound(list(encoder.blocks(sound)), windows, keys))


def _prepared(encoder: Encoder, text: str, parts: Sequence[Part]) -> list[Prepared]:
    """Prepare passages of a text whose places are known."""
    texts = [text[int(part.start or 0) : int(part.stop or 0)] for part in parts]
    prepared: list[Prepared] = []
    for start in range(0, len(texts), TOGETHER):
        stopping.check()
        prepared += encoder.prepare_all(texts[start : start + TOGETHER])
    return prepared


def _note_of(text: str, passages: Sequence[Passage]) -> str:
    """Say how much of a text is searched, if that is not all of it."""
    stop = passages[-1].stop if len(passages) >= MAX_PASSAGES else MAX_DOCUMENT_CHARACTERS
    if not text[stop:].strip():
        return ""
    limit = (
        f"{MAX_PASSAGES:,} passages" if stop < MAX_DOCUMENT_CHARACTERS else f"{MAX_DOCUMENT_CHARACTERS:,} characters"
    )
    return f"only its first {stop:,} characters are searched: of a text, at most {limit} are"


def _add(loaded: LoadedContents, modality: Modality, part: Part, sha256: bytes) -> ContentKey:
    key = ContentKey(modality, sha256) if part.kind == "content" else part_key(modality, part.role, sha256)
    loaded.roles[part.role] = key
    return key


def _spans(parts: Sequence[Part]) -> list[tuple[float, float]]:
    return [(part.start or 0.0, part.stop or 0.0) for part in parts if part.kind == "window"]


def parts_of(contents: Mapping[str, ContentKey]) -> list[Part]:
    """Return the parts that a stored item has beside its content and caption."""
    return [part for part in map(Part.parse, contents) if part.kind not in ("content", "caption")]
