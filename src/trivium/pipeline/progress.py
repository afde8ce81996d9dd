"""How long work tells how far it is."""

from collections.abc import Callable
from typing import TypeAlias

Bars: TypeAlias = Callable[[str, int, int], None]  # (what, done, to do)
