"""Sound files, resampling and features: from bytes to (T, 80) log-mel frames.

Invariant: no torch; knows nothing of models. Import the modules, this package exports nothing.
"""
