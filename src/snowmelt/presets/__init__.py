"""Which numbers make a model and a run? Frozen dataclasses, named presets, rates of frames.

Invariant: numbers and names only: no torch, no files.
"""
