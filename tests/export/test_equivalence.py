"""One model, every form: the same numbers, frame by frame, whole and in chunks."""

import numpy as np
import pytest

from snowmelt.export.equivalence import Difference, differences, forms_of
from snowmelt.runtime.load import load_transducer
from tests.export.models import eager, noisy_experiment
from tests.runtime.tiny import TINY_MODELS

_TOLERANCE = 1e-4

# Chunks of each utterance: shorter than the left context and longer, more utterances than streams.
_NUM_CHUNKS = (7, 2, 5, 1, 1, 3, 9, 4, 2, 6)


def _features(overlap: int, chunk_len: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [
        rng.normal(-6, 4, (overlap + chunk_len * num, 80)).astype(np.float32) for num in _NUM_CHUNKS
    ]


@pytest.mark.parametrize(
    ("encoder", "chunk_len"),
    [
        ("lstm", 32),
        pytest.param("lstm", 4, marks=pytest.mark.slow),
        pytest.param("lstm", 64, marks=pytest.mark.slow),
        pytest.param("zipformer", 16, marks=pytest.mark.slow),
        pytest.param("zipformer", 32, marks=pytest.mark.slow),
        pytest.param("zipformer", 64, marks=pytest.mark.slow),
    ],
)
def test_every_form_gives_the_frames_of_the_whole(encoder, chunk_len, tmp_path):
    folder = noisy_experiment(tmp_path, TINY_MODELS[encoder])
    forms = forms_of(load_transducer(folder, decode_chunk_len=chunk_len))
    features = _features(forms["eager"].front_end.window_overlap, chunk_len)
    rows = differences(forms, features, chunk_len)
    assert [(row.form, row.how) for row in rows] == [
        ("eager", "chunks"),
        *((form, how) for form in ("scripted", "traced", "onnx") for how in ("whole", "chunks")),
    ]
    assert [row for row in rows if not row.largest <= _TOLERANCE] == []
    assert max(row.largest for row in rows) > 0.0  # they are not one and the same


def test_a_difference_is_found(tmp_path):
    """In the last chunk of one utterance."""
    reference = eager(noisy_experiment(tmp_path, TINY_MODELS["lstm"]))
    features = _features(5, 32)

    class Other(type(reference)):
        def __init__(self) -> None:
            vars(self).update(vars(reference))

        def encode(self, features, feature_lens, states):
            out, lens, new = super().encode(features, feature_lens, states)
            return out + 0.5 * (features.max() > 100), lens, new

    features[6][-1, 3] = 200.0
    same, whole, other = differences({"a": reference, "b": Other()}, features, 32)
    assert same.largest < 1e-5 and whole == Difference("b", "whole", 0.0, 0)
    assert other.how == "chunks" and other.worst == 6
    assert other.largest == pytest.approx(0.5, abs=1e-3)
