"""How good a space is: what it finds, what it can name unseen, and whether its scores mean what they say.

May import: `pipeline.space`, `pipeline.tables`, `fusion.kernels`, `encoders`.
"""
