"""Bytes of media to arrays: texts, pictures, sounds, videos, as the sandbox and the backbones call it.

May import: `encoders.files` and `encoders.base`.
"""
