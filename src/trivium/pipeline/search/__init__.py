"""From queries to hits, and the index files that make it fast.

May import: `pipeline.store`, `pipeline.tables`, `pipeline.space`, `indexes`.
"""
