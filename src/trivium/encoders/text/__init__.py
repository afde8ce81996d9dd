"""Text encoders: MiniLM, and networks of one's own over token ids.

May import: `encoders.networks`, `encoders.files`, `encoders.base`.
"""
