"""What looks after a collection: verify, compact, migrate, export, import, back up.

May import: `pipeline.ingest`, `pipeline.search`, `pipeline.store` and what these may.
"""
