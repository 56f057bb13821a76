"""How does a model learn? From a manifest of cuts to checkpoints.

`launch` settles a run and starts its processes; in each of them `trainer` takes the batches of a
step from `corpus`, learns from them with `step` (losses from `objective`, through `guard`), and
keeps the state in `resume` and the record in `history`.

Invariant: knows neither recognizers nor result files; what it writes, `checkpoint` can read.
"""
