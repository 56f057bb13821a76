"""Text on both sides of the model: tokenizers before it, word error rates after it.

Invariant: no torch; knows nothing of sound or models. Import the modules, this package exports
nothing.
"""
