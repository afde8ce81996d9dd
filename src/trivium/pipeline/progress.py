"""How long work tells how far it is."""

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], None]  # (done, to do)
Bars: TypeAlias = Callable[[str, int, int], None]  # (what, done, to do): a kind of file, a modality
