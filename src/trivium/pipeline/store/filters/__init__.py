"""Which items are wanted: `Filter`, by modality, by path, and by an expression over captions and metadata."""

from trivium.pipeline.store.filters.error import FilterError
from trivium.pipeline.store.filters.filter import Filter
from trivium.pipeline.store.filters.functions import register_functions

__all__ = ["Filter", "FilterError", "register_functions"]
