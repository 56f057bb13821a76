"""One module a runtime; each turns its own tensors into the arrays of `runtime.backend`.

Invariant: nothing is imported here, so that a machine without torch never meets it.
"""
