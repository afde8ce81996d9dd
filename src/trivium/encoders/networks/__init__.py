"""Frozen networks to run: their pinned weights, their exported graphs, ONNX Runtime on a CPU, torch elsewhere.

May import: `encoders.files` and the modules beside the rooms that import no room.
"""
