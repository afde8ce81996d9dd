"""Explanations of hits: the file is read again, checked to be the one that was indexed, and decoded as indexing does.

Nothing that is wrong with a file, a decoder or an encoder fails a search: the explanation then says why there is none.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import DecodeError, SandboxError, WeightsError, unit_rows
from trivium.encoders.decoding.sounds import Sound
from trivium.encoders.files.reading import OpenedFile
from trivium.encoders.sandbox.heads import MAX_HELD_BYTES
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.encoders.sandbox.streams import SoundStream
from trivium.encoders.text.backbone import MAX_DOCUMENT_CHARACTERS
from trivium.pipeline.explain.drops import (
    MAX_MEANS,
    MAX_SECONDS,
    ExplainedQuery,
    Explanation,
    Mark,
    left_out_drops,
    picture_drops,
    shrunken,
    sound_drops,
    text_drops,
)
from trivium.pipeline.ingest.scanning import fingerprint
from trivium.pipeline.ingest.sources import open_media
from trivium.pipeline.records import Part, modality_of
from trivium.pipeline.search.query import QueryPart
from trivium.pipeline.search.retrieval import Hit
from trivium.pipeline.space.config import SpaceError
from trivium.pipeline.space.joint import JointSpace

CHANGED = "the file has changed since it was indexed: index it again first"
TOO_LONG = (
    f"a sound of more than {MAX_SECONDS / 60:.0f} minutes: index it with --windows, so that hits say which part of it"
)
Vector: TypeAlias = NDArray[np.float32]  # (d,)
Sha256Of: TypeAlias = Callable[[str], bytes | None]  # what a path held when it was indexed


def explain(
    space: JointSpace, parts: Sequence[QueryPart], hits: Iterable[Hit], *, sha256_of: Sha256Of = lambda _: None
) -> list[Explanation]:
    """Say for each hit which parts of it and which words of the query held up its score.

    Args:
        space: The collection's.
        parts: The query.
        hits: Of it.
        sha256_of: What a file held when it was indexed, for files whose times do not tell whether they are the same.

    Raises:
        QueryError: If the query cannot be encoded.
    """
    asked = ExplainedQuery(space, parts)
    with DecodeSandbox(workers=1) as sandbox:
        explainer = _Explainer(space, asked, sandbox, sha256_of)
        return [explainer.explanation(hit) for hit in hits]


class _Explainer:
    """Explains hits of one query."""

    def __init__(self, space: JointSpace, asked: ExplainedQuery, sandbox: DecodeSandbox, sha256_of: Sha256Of) -> None:
        self._space = space
        self._asked = asked
        self._sandbox = sandbox
        self._sha256_of = sha256_of

    def explanation(self, hit: Hit) -> Explanation:
        """Explain a hit, or say why not."""
        try:
            return self._of_hit(hit)
        except FileNotFoundError:
            return Explanation(reason="the file is gone")
        except DecodeError as error:
            return Explanation(reason=error.reason)
        except MemoryError:
            return Explanation(reason="too large for this machine's memory")
        except OSError as error:
            return Explanation(reason=f"the file cannot be read: {error.strerror or error}")
        except (SandboxError, SpaceError, WeightsError) as error:
            return Explanation(reason=str(error))

    def _of_hit(self, hit: Hit) -> Explanation:
        if hit.matched == "caption":
            return self._of_text(hit.caption or "")
        with self._opened(hit) as file:
            modality = modality_of(hit.modality, Part(hit.matched, hit.start, hit.stop))
            if modality == "text":
                return self._of_text(self._sandbox.text(file.read(), most=MAX_DOCUMENT_CHARACTERS), hit)
            if hit.modality == "video" and hit.matched == "content":
                return self._of_pictures(file)
            if modality == "audio":
                return self._of_sound(file, hit)
            return self._of_picture(self._picture(file, hit))

    def _opened(self, hit: Hit) -> OpenedFile:
        """Open a hit's file, if it holds what was indexed."""
        if fingerprint(os.lstat(hit.path)) != hit.fingerprint:
            known = self._sha256_of(hit.path)
            with open_media(hit.path, hit.modality, self._sandbox.limits) as file:
                if known is None or file.sha256() != known:
                    raise DecodeError(CHANGED)
        return open_media(hit.path, hit.modality, self._sandbox.limits)

    def _of_text(self, text: str, hit: Hit | None = None) -> Explanation:
        at = 0
        if hit is not None and hit.start is not None and hit.stop is not None:
            at = int(hit.start)
            text = text[at : int(hit.stop)]
        vector, words = text_drops(self._space.encoder("text"), text, self._asked.vector, at=at)
        return self._made(vector, words=words)

    def _of_picture(self, pixels: NDArray[np.uint8]) -> Explanation:
        encoder = self._space.encoder("image")
        picture = shrunken(pixels, encoder.side)
        vector, regions = picture_drops(encoder, picture, self._asked.vector)
        return self._made(vector, regions=regions, picture=picture)

    def _of_pictures(self, file: OpenedFile) -> Explanation:
        """Explain a whole video, whose vector is the mean of its pictures': by when they are."""
        encoder = self._space.encoder("image")
        frames = self._sandbox.video(_source(file), encoder.prepare, side=encoder.side, partial=True)
        _give_up(frames.sound)
        kept = frames.frames[:: -(-len(frames.frames) // MAX_MEANS)]
        vectors = encoder.embed([prepared for _, prepared in kept])
        mean: Vector = unit_rows(vectors.mean(axis=0, keepdims=True))[0]
        if len(kept) == 1:
            return self._made(mean)
        drops = left_out_drops(vectors, self._asked.vector)
        times = [round(seconds, 3) for seconds, _ in kept]
        return self._made(
            mean,
            seconds=tuple(
                Mark(start=start, stop=stop, drop=float(drop))
                for start, stop, drop in zip(times, [*times[1:], times[-1]], drops, strict=True)
            ),
        )

    def _of_sound(self, file: OpenedFile, hit: Hit) -> Explanation:
        if hit.modality == "video":
            sound = self._sandbox.video(_source(file), lambda _: None, partial=True).sound
            if sound is None:
                raise DecodeError(CHANGED)
        else:
            sound = self._sandbox.sound(_source(file), partial=True)
        at = hit.start or 0.0
        taken = _stretch(sound, at, hit.stop)
        vector, seconds = sound_drops(self._space.encoder("audio"), taken, self._asked.vector, at=at)
        return self._made(vector, seconds=seconds)

    def _picture(self, file: OpenedFile, hit: Hit) -> NDArray[np.uint8]:
        side = self._space.encoder("image").side
        if hit.modality == "image":
            return self._sandbox.decode("image", _source(file), side=side, partial=True)
        # Twice, because a video's pictures are too large to be kept until their times are known.
        source = _source(file)
        times = self._sandbox.video(source, lambda _: None, side=side, partial=True)
        _give_up(times.sound)
        nearest = int(np.argmin([abs(seconds - (hit.start or 0.0)) for seconds, _ in times.frames]))
        count = iter(range(len(times.frames)))
        again = self._sandbox.video(
            source, lambda pixels: pixels if next(count) == nearest else None, side=side, partial=True
        )
        _give_up(again.sound)
        picture = again.frames[nearest][1]
        assert picture is not None
        return picture

    def _made(
        self,
        vector: Vector,
        *,
        words: tuple[Mark, ...] = (),
        seconds: tuple[Mark, ...] = (),
        regions: NDArray[np.float32] | None = None,
        picture: NDArray[np.uint8] | None = None,
    ) -> Explanation:
        return Explanation(
            score=float(vector @ self._asked.vector),
            query=self._asked.marks(vector),
            words=words,
            seconds=seconds,
            regions=regions,
            picture=picture,
        )


def _source(file: OpenedFile) -> bytes | int:
    return file.read() if file.size <= MAX_HELD_BYTES else file.descriptor


def _stretch(sound: Sound | SoundStream, start: float, stop: float | None) -> Sound:
    """Take a part of a sound, as far as it is not too long."""
    if isinstance(sound, tuple):
        waveform, rate_hz = sound
        return waveform[int(start * rate_hz) : None if stop is None else int(np.ceil(stop * rate_hz))], rate_hz
    try:
        end = sound.frames / sound.rate_hz if stop is None else stop
        if end - start > MAX_SECONDS:
            raise DecodeError(TOO_LONG)
        first, last = int(start * sound.rate_hz), int(np.ceil(end * sound.rate_hz))
        taken, done = [np.empty(0, np.float32)], 0
        for chunk in sound.chunks:
            taken.append(chunk[max(0, first - done) : max(0, last - done)])
            done += len(chunk)
            if done >= last:
                break
        return np.concatenate(taken), sound.rate_hz
    finally:
        sound.close()


def _give_up(sound: Sound | SoundStream | None) -> None:
    if isinstance(sound, SoundStream):
        sound.close()
