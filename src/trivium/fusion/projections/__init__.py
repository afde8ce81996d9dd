"""Maps from an encoder's features into a shared space, in NumPy, and how they are learnt.

May import: `encoders.base`.
"""
