"""Frames of texts and files to tables of numbers, encoded once by frozen encoders.

May import: `pipeline.space` and `encoders`.
"""
