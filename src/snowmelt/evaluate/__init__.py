"""How good is a model? A corpus in, word error rates and the original's result files out.

Invariant: a model is used through recognizers only; nothing of training is imported.
"""
