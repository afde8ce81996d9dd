"""A collection on disk: SQLite, write-once shards, locks, filters.

May import: `indexes`, `encoders.files`, `pipeline.records`.
"""
