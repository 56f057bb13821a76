"""How do parameters move, and how fast? Optimisers and learning-rate schedules.

Invariant: formulas on tensors; knows no model classes, batches or files.
"""
