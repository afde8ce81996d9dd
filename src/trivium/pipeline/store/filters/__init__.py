"""Which items are wanted: `Filter`, by modality, by path, and by an expression over captions and metadata."""

from trivium.pipeline.store.filters.conditions import register_functions
from trivium.pipeline.store.filters.expression import FilterError
from trivium.pipeline.store.filters.filter import Filter

__all__ = ["Filter", "FilterError", "register_functions"]
