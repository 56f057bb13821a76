"""From sound to words: recognizers over a backend, and the scheduler of streams.

A recognizer is written once; torch and other runtimes supply a `Backend`.

Invariant: no sockets, no corpora, no threads (they are the caller's affair); torch lives in
`backends/torch_eager.py` only.
"""
