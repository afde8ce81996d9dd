"""How long work tells how far it is."""

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], None]  # (done, to do)
# (what, done, to do): a kind of file, a modality. What is done may have a fraction: a part of a large file.
Bars: TypeAlias = Callable[[str, float, int], None]
