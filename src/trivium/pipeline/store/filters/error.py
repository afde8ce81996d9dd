"""What a filter that cannot be understood raises."""


class FilterError(ValueError):
    """A filter that cannot be understood; a second and a third line may point at the place."""
