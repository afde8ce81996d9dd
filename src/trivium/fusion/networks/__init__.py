"""Fusions that are torch modules, one vector from several, and how they are fitted. May import: `fusion.blocks`."""
