"""How does recorded speech become training batches?

corpora/ -> cuts.py -> filter.py -> sampler.py -> augment.py -> batch.py, in this order.

Invariant: what an utterance looks like in an epoch is a function of (seed, epoch, utterance id)
alone: neither the batch it is in, nor the order of calls, nor the number of workers matters.
"""
