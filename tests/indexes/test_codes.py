"""Near codes against each pair compared bit by bit."""

import numpy as np
import pytest

from trivium.indexes import codes
from trivium.indexes.codes import near_codes


@pytest.mark.parametrize("most_bits", [0, 6, 16])
def test_against_every_pair(most_bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "CHUNK_CODES", 64)
    draw = np.random.default_rng(0)
    base = draw.integers(-(2**63), 2**63, size=40, dtype=np.int64)
    flips = np.zeros((40, 5), np.int64)
    for row in range(40):
        for place in range(5):
            for bit in draw.choice(64, size=draw.integers(0, 20), replace=False).tolist():
                flips[row, place] ^= np.int64(-(2**63)) if bit == 63 else np.int64(1 << bit)
    given = np.unique(base[:, None] ^ flips)
    starts, places, bits = near_codes(given, most_bits=most_bits)
    assert len(starts) == len(given) + 1
    for number, code in enumerate(given.tolist()):
        apart = [((code ^ other) & (2**64 - 1)).bit_count() for other in given.tolist()]
        expected = {place: distance for place, distance in enumerate(apart) if distance <= most_bits}
        near = slice(starts[number], starts[number + 1])
        assert dict(zip(places[near].tolist(), bits[near].tolist(), strict=True)) == expected
