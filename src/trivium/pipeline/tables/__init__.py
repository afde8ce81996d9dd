"""Tables of users: metadata, pairs that belong together.

May import: `encoders.base`, `encoders.files`, `pipeline.records`.
"""
