"""Audio encoders: waveforms, log-mel spectrograms, AiSFX, and what a GPU does of it.

May import: `encoders.networks`, `encoders.sandbox`, `encoders.decoding`, `encoders.files`.
"""
