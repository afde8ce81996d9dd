"""From files to vectors in a collection: scanning, loading, encoding.

May import: `pipeline.search.indexing`, `pipeline.store`, `pipeline.tables`, `pipeline.space`, `encoders`.
"""
