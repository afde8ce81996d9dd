"""Any model that open_clip knows, or a checkpoint of one, as encoders of one space.

May import: every other room of `encoders`; only spaces that name one import it.
"""
