"""How fast this machine reads, decodes, encodes and stores.

May import: `pipeline.ingest`, `pipeline.store`, `pipeline.space`, `encoders`.
"""
