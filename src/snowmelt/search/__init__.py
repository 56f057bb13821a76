"""From encoder output to tokens: the searches, written once, on arrays.

Not to be confused with `models/decoder.py`, which is the prediction network, nor with
`evaluate/decode.py`, which scores a corpus.

Invariant: no torch, no onnxruntime, no sound, no model classes; a search sees a `Scorer` only.
"""
