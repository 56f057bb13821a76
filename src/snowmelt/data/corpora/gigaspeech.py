"""Which subsets of GigaSpeech are learnt from, validated on and tested on?

English audiobooks, podcasts and videos, 10,000 hours in subset XL, 250 in S (Chen et al. 2021). The
recipes make no speed copies of it.

Invariant: names of subsets only; `manifests` reads them.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless3/gigaspeech.py.
"""

from pathlib import Path

from snowmelt.data.corpora.manifests import ManifestCorpus, PartSelection

__all__ = ["gigaspeech"]


def gigaspeech(folder: Path, selection: PartSelection) -> ManifestCorpus:
    """GigaSpeech in a folder of manifests, `gigaspeech_cuts_<subset>.jsonl.gz`."""
    return ManifestCorpus(
        "gigaspeech",
        folder,
        train=selection.train_parts or (("XL",) if selection.full_libri else ("S",)),
        dev=selection.dev_parts or ("DEV",),
        test=selection.test_parts or ("TEST",),
    )
