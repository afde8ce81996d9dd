"""What a projection promises: a backbone's features in, unit vectors of a space out."""

from typing import Protocol

from trivium.encoders.base import Features, Vectors


class Projection(Protocol):
    """A map from one backbone's features into a space."""

    def __call__(self, features: Features, /) -> Vectors:
        """Return unit vectors, shape (n, d), one for each row of ``features``."""
        ...
