"""A space whose vectors the test chooses: a text's is looked up, a file's by its name without suffix."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trivium.encoders.base import DecodeError, Modality, Space, unit_rows
from trivium.pipeline.space.config import SpaceConfig
from trivium.pipeline.space.joint import JointSpace
from trivium.pipeline.tables.pairs import PairTable, Row


class ChosenSpace(JointSpace):
    """Encodes by a table of vectors; what it does not know cannot be decoded."""

    def __init__(self, vectors: Mapping[str, Sequence[float]], modalities: tuple[Modality, ...]) -> None:
        dim = len(next(iter(vectors.values())))
        config = SpaceConfig(space=Space(name="chosen", dim=dim, revision="r1"), description="", encoders={})
        super().__init__(config, source="chosen")
        self._vectors = vectors
        self._modalities = modalities
        self.encoded: list[tuple[Modality, str]] = []

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return self._modalities

    def encode(self, modality: Modality, items: Any, **options: Any) -> Any:
        rows = []
        for place, item in enumerate(items):
            self.encoded.append((modality, item))
            name = item if modality == "text" else Path(item).stem
            if name in self._vectors:
                rows.append(self._vectors[name])
            elif options.get("on_error") is not None:
                options["on_error"](place, DecodeError(f"no {modality}"))
            else:
                raise DecodeError(f"no {modality}: {name}")
            if options.get("progress") is not None:
                options["progress"](place + 1)
        return unit_rows(np.array(rows, np.float32).reshape(-1, self.space.dim))


@pytest.fixture(scope="session")
def chosen() -> Callable[..., ChosenSpace]:
    def make(vectors: Mapping[str, Sequence[float]], modalities=("text", "image", "audio")) -> ChosenSpace:
        return ChosenSpace(vectors, modalities)

    return make


@pytest.fixture(scope="session")
def pair_table() -> Callable[..., PairTable]:
    """Make a table of rows without a file; pictures and sounds need no file either."""

    def make(*rows: dict[str, Any]) -> PairTable:
        taken = [Row(line=line, **row) for line, row in enumerate(rows, start=2)]
        columns = {role: role for role in ("text", "image", "audio", "label", "score") if any(role in r for r in rows)}
        return PairTable(path=Path("/data/pairs.csv"), columns=columns, rows=taken, refused=[])  # type: ignore[arg-type]

    return make
