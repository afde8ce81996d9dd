"""Fusion of feature blocks by kernel ridge experts, with missing modalities. May import: nothing of trivium."""
