"""Fusion of feature blocks by stacked kernel machines, with missing modalities. May import: `fusion.blocks`."""
