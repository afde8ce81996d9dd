"""Image encoders: pictures fitted to a network, EfficientNet, and what a GPU does of it.

May import: `encoders.networks`, `encoders.sandbox`, `encoders.decoding`, `encoders.files`.
"""
