"""Training as its formulas stand in the papers and in the original: what ours is compared with.

`make_plain` takes a `TrainState` back to plain torch: masked attention over whole utterances, a
DoubleSwish whose derivative is rounded to 8 bits at random, torch's dropout, convolutions with the
channels first, regularisers in torch operations, ScaledAdam that stacks all parameters.

Invariant: the same classes, weights and losses; only how they are computed differs.
"""

from benchmarks.plain.model import make_model_plain, make_plain

__all__ = ["make_model_plain", "make_plain"]
