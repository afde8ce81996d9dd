"""Learns a space from tables of what belongs together.

May import: `fusion`, `pipeline.features`, `pipeline.evaluation`, `pipeline.tables`, `pipeline.space`.
"""
