"""Which parts of LibriSpeech are learnt from, validated on and tested on?

Read English books, 960 hours for training in three parts (Panayotov et al. 2015); mini LibriSpeech
is five hours of them.

Invariant: names of parts only; `manifests` reads them.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless2/asr_datamodule.py.
"""

from pathlib import Path
from typing import Final

from snowmelt.core.errors import ConfigError
from snowmelt.data.corpora.manifests import ManifestCorpus, PartSelection, find_manifest

__all__ = ["librispeech"]

_NAME: Final = "librispeech"
# All three training parts in one shuffled manifest, as some preparations leave them.
_SHUFFLED: Final = "train-all-shuf"
_TRAIN: Final = ("train-clean-100", "train-clean-360", "train-other-500")
_DEV: Final = ("dev-clean", "dev-other")
_TEST: Final = ("test-clean", "test-other")


def librispeech(folder: Path, selection: PartSelection) -> ManifestCorpus:
    """LibriSpeech in a folder of manifests, `librispeech_cuts_<part>.jsonl.gz`.

    Raises:
        ConfigError: all of the corpus is asked for, and its smallest part.
    """
    train: tuple[str, ...] = _TRAIN
    dev: tuple[str, ...] = _DEV
    if selection.mini_libri:
        if selection.full_libri:
            raise ConfigError(
                "Cannot set both mini-libri and full-libri flags to True",
                "mini LibriSpeech is asked for with --mini-libri true --full-libri false",
            )
        train, dev = ("train-clean-5",), ("dev-clean-2",)
    elif not selection.full_libri:
        train = ("train-clean-100",)
    elif find_manifest(folder, f"{_NAME}_cuts_{_SHUFFLED}") is not None:
        train = (_SHUFFLED,)
    return ManifestCorpus(
        _NAME,
        folder,
        train=selection.train_parts or train,
        dev=selection.dev_parts or dev,
        test=selection.test_parts or _TEST,
    )
