"""Which items are wanted: `Filter`, by modality, by path, and by an expression over captions and metadata."""

from trivium.pipeline.filters.error import FilterError
from trivium.pipeline.filters.filter import Filter
from trivium.pipeline.filters.functions import register_functions

__all__ = ["Filter", "FilterError", "register_functions"]
