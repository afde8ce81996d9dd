"""Learning text encoders: classifiers, masked-language-model pre-training, and students of a space's teacher.

May import: `pipeline.tables`, `encoders.text`, `encoders.networks`, `encoders.files`.
"""
