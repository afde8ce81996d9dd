"""Bringing modalities together: projections into one space, and combinations of vectors within it."""

from trivium.fusion.combination import weighted_sum
from trivium.fusion.labels import LabelBridge
from trivium.fusion.projection import CentredProjection, IdentityProjection, LinearProjection, Projection

__all__ = ["CentredProjection", "IdentityProjection", "LabelBridge", "LinearProjection", "Projection", "weighted_sum"]
