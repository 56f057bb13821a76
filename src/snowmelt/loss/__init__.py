"""What is the transducer loss of a batch? `rnnt` holds the functions, under their known names.

Invariant: knows tensors only: no model, no batch type, no file.
"""
