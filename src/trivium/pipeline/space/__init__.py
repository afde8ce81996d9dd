"""A space: its configuration, its encoders and projections, how relevant a score is.

May import: `encoders` and `fusion`.
"""
