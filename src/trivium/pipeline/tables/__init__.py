"""Tables of users: their rows, metadata of items, pairs that belong together.

May import: `encoders.base`, `encoders.files`, `pipeline.records`.
"""
