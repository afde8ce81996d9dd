"""Why a hit was found: parts of it are hidden one after the other.

May import: `pipeline.ingest`, `pipeline.search` and what these may.
"""
