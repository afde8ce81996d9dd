"""Classifiers and regressors over several modalities, with scikit-learn's interface.

May import: `fusion`, `pipeline.features`, `pipeline.collection`, `pipeline.tables`.
"""
