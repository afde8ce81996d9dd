"""Frames to tables: every layer that the encoders give is there, and each is a view of its modality."""

import numpy as np
from numpy.testing import assert_array_equal

from trivium.encoders.base import Features
from trivium.pipeline.fused.columns import blocks_of
from trivium.pipeline.fused.frames import EncodedFrame, table_of, views_of


def test_views_of_a_modality_stand_side_by_side() -> None:
    random = np.random.default_rng(0)
    pooled, logits, early, late = (random.normal(size=(2, d)).astype(np.float32) for d in (4, 3, 2, 5))
    image = Features(pooled=pooled, logits={"what": logits}, layers={"early": early, "late": late})
    text = Features(pooled=random.normal(size=(3, 6)).astype(np.float32))
    frame = EncodedFrame(
        features={"text": text, "image": image},
        rows={"text": np.array([0, 1, 2]), "image": np.array([2, 0])},
        count=3,
        failures={},
    )
    views = views_of(frame)
    assert views == {"text": (6,), "image": (7, 2, 5)}
    blocks = blocks_of(views)
    assert blocks == {"text": (0, 6), "image": (6, 20)}
    table = table_of(frame, blocks)
    assert_array_equal(table[:, :6], text.pooled)
    assert_array_equal(table[[2, 0], 6:], np.hstack([pooled, logits, early, late]))
    assert np.isnan(table[1, 6:]).all()
    last = blocks_of({name: widths[:1] for name, widths in views.items()})
    assert_array_equal(table_of(frame, last), table[:, :13])
