"""Files and folders, read and written safely: bounded, whole or not at all, durable.

May import: nothing of trivium but `encoders.base`.
"""
