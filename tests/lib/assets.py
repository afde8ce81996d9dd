"""Where the small real files are that tests read."""

from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"
