"""What loading a file counts: each stage its own work."""

import time
from pathlib import Path
from typing import Any

import pytest

from trivium.encoders.files.reading import open_file
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.pipeline.ingest.contents import Claims, loading_stats
from trivium.pipeline.ingest.loading import Loader

PREPARE_SECONDS = 0.03


def test_pictures_of_a_video_are_prepared_and_not_decoded(space: Any, tmp_path: Path, reference, monkeypatch) -> None:
    pytest.importorskip("av", reason="PyAV comes with the extra 'video'")
    path = tmp_path / "v.mp4"
    path.write_bytes(reference("videos").video(scenes=[("red", 2.0), ("green", 2.0), ("blue", 2.0)], sound="aac"))
    encoder_class = type(space.encoder("image"))
    prepare = encoder_class.prepare

    def slow_prepare(encoder: Any, item: Any) -> Any:
        time.sleep(PREPARE_SECONDS)
        return prepare(encoder, item)

    monkeypatch.setattr(encoder_class, "prepare", slow_prepare)
    monkeypatch.setattr(encoder_class, "blocks", lambda *_: iter(()))
    with DecodeSandbox(1) as sandbox:
        stats = loading_stats(sandbox)
        loaded = Loader(space, sandbox, Claims(()), stats=stats).contents("video", open_file(path))
        stats.end()
    pictures = len(loaded.prepared)
    decode, preparing = stats.stage("decode"), stats.stage("prepare")
    assert pictures >= 3
    assert preparing.busy_seconds >= pictures * PREPARE_SECONDS
    assert decode.busy_seconds + preparing.busy_seconds <= stats.seconds  # nothing is counted twice
    assert (decode.items, preparing.items) == (1, 1)
    assert stats.processor_shares() == {} or stats.processor_shares()["decode"] > 0
