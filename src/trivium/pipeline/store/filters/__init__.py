"""Which items are wanted: `Filter`, by modality, by path, and by an expression over captions and metadata."""

from trivium.pipeline.store.filters.expression import FilterError
from trivium.pipeline.store.filters.filter import Filter
from trivium.pipeline.store.filters.patterns import conditions_of, register_functions

__all__ = ["Filter", "FilterError", "conditions_of", "register_functions"]
