"""Decoding in locked processes of their own, so that a hostile file harms nothing.

May import: `encoders.decoding`, `encoders.files`, `encoders.base`, `encoders.machine`.
"""
