"""What is in a trained model's files, and how do several become one set of weights?

Invariant: knows files and state dicts; no training loop, no optimiser mathematics.
"""
