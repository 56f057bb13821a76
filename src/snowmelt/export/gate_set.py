"""What does an exported model hear before it may leave? Utterances whose words are known.

Invariant: sound is loaded when an utterance's turn comes; a model is asked as a server asks it, in
real chunks, several streams at a time.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from lhotse import CutSet, load_manifest_lazy
from lhotse.cut import Cut
from lhotse.cut.data import DataCut

from snowmelt.audio.samples import Float32Array
from snowmelt.core.errors import DataError
from snowmelt.core.files import require_file
from snowmelt.data.corpora import open_corpus, selection_of
from snowmelt.data.cuts import AudioCache, cut_text, load_samples
from snowmelt.presets.data import DataConfig
from snowmelt.runtime.backend import SpeechModel
from snowmelt.runtime.recognizer import OnlineRecognizer
from snowmelt.runtime.scheduler import AudioSource, recognize
from snowmelt.runtime.stream import FeatureStream
from snowmelt.search.scorer import FloatArray
from snowmelt.text.wer import WerStats, score

__all__ = ["GateCuts", "GateUtterance", "Heard", "gate_utterances", "hear", "logits"]

_NUM_STREAMS: Final = 16

_SPLITS: Final = ("train", "dev", "test")

_SEED: Final = 20230207


@dataclass(frozen=True)
class GateCuts:
    """Where the utterances are.

    Attributes:
        cuts: "dev", "test" or "train" of the corpus; or the path of a manifest of cuts.
        corpus: its name; None: the one trained on.
        data_dir: folder of prepared corpora.
        manifest_dir: folder of the manifests of other corpora.
    """

    cuts: str = "dev"
    corpus: str | None = None
    data_dir: Path = Path("data")
    manifest_dir: Path = Path("data/fbank")


class GateUtterance(NamedTuple):
    """An utterance, the words that are said in it, and a way to its sound."""

    name: str
    words: list[str]
    load: Callable[[], tuple[int, Float32Array]]


class Heard(NamedTuple):
    """What a model made of the set.

    Attributes:
        stats: its word errors.
        processor_s: processor time, features and search included.
        audio_s: seconds of sound.
    """

    stats: WerStats
    processor_s: float
    audio_s: float


def gate_utterances(source: GateCuts, data: DataConfig, head: str) -> list[GateUtterance]:
    """The utterances of a gate.

    Args:
        source: where they are.
        data: what the model was trained on.
        head: whose words it finds.

    Raises:
        UserError: there is no such corpus or manifest, or no word is said in it.
    """
    if source.cuts in _SPLITS:
        name = source.corpus or data.part_of_head(head).corpus
        corpus = open_corpus(
            name, source.data_dir, source.manifest_dir, selection=selection_of(data, name)
        )
        splits = corpus.test_sets if source.cuts == "test" else (source.cuts,)
        cuts: Iterable[Cut] = (cut for split in splits for cut in corpus.cuts(split))
    else:
        cuts = _read(Path(source.cuts))
    cache = AudioCache(max_bytes=0)  # every cut is heard alone

    def loader(cut: Cut) -> Callable[[], tuple[int, Float32Array]]:
        return lambda: (int(cut.sampling_rate), load_samples(cut, cache))

    utterances = [GateUtterance(cut.id, cut_text(cut).split(), loader(cut)) for cut in cuts]
    if not any(utterance.words for utterance in utterances):
        raise DataError(f"{source.cuts} holds no utterance with words", "choose other --gate-cuts")
    return utterances


def _read(path: Path) -> CutSet:
    require_file(
        path,
        "the manifest of cuts",
        error=DataError,
        hint=f"--gate-cuts takes {', '.join(_SPLITS)} or a .jsonl.gz of cuts",
    )
    try:
        cuts = load_manifest_lazy(path)
    except Exception as error:  # lhotse raises what its readers raise
        reason = str(error) or "it is empty or damaged"  # lhotse's StopIteration says nothing
        raise DataError(f"{path} is no manifest of cuts: {reason}", "pass a .jsonl.gz") from error
    if not isinstance(cuts, CutSet):
        raise DataError(f"{path} is no manifest of cuts", "pass a .jsonl.gz of cuts")
    return cuts.map(partial(_beside, path.absolute().parent))


def _beside(folder: Path, cut: Cut) -> Cut:
    """The cut with the sound file beside its manifest, where our own manifests have it."""
    if not isinstance(cut, DataCut) or cut.recording is None:
        return cut
    sources = cut.recording.sources
    if not all(s.type == "file" and (folder / s.source).is_file() for s in sources):
        return cut
    prefixed: Cut = cut.with_recording_path_prefix(folder)
    return prefixed


def hear(model: SpeechModel, utterances: Sequence[GateUtterance]) -> Heard:
    """Let a model recognise the set, greedily.

    Raises:
        UserError: the sound of an utterance cannot be used.
    """
    recognizer = OnlineRecognizer(model)
    begin = time.process_time()
    rows, audio_s = [], 0.0
    sources = [AudioSource(u.name, _opener(u)) for u in utterances]
    for outcome in recognize(recognizer, sources, max_streams=_NUM_STREAMS):
        if outcome.error is not None:
            raise outcome.error
        assert outcome.result is not None
        audio_s += outcome.duration_s
        utterance = utterances[outcome.index]
        rows.append((utterance.name, utterance.words, outcome.result.text.split()))
    return Heard(score(rows), time.process_time() - begin, audio_s)


def logits(model: SpeechModel, utterances: Sequence[GateUtterance]) -> FloatArray:
    """(frames, V) scores of a model on all frames of utterances, each behind random tokens."""
    scorer = model.backend.scorer
    rng = np.random.default_rng(_SEED)
    found = []
    for utterance in utterances:
        frames = _frames(model, utterance)
        size = (len(frames), scorer.context_size)
        contexts = rng.integers(0, model.tokenizer.vocab_size, size, dtype=np.int64)
        found.append(scorer.join(frames, scorer.decode(contexts)))
    return np.concatenate(found)


def _frames(model: SpeechModel, utterance: GateUtterance) -> FloatArray:
    """(T, J) projected encoder frames of a whole utterance."""
    sound = FeatureStream(
        model.features,
        decode_chunk_len=model.backend.decode_chunk_len,
        window_overlap=model.backend.front_end.window_overlap,
        min_tail_s=model.min_tail_s,
    )
    sound.accept_waveform(*utterance.load())
    sound.input_finished()
    num_frames = sound.num_frames_ready
    features = sound.frames(0, num_frames)[np.newaxis]
    encoder_proj, lens = model.backend.encode_whole(features, np.array([num_frames]))
    return encoder_proj[0, : lens[0]]


def _opener(utterance: GateUtterance) -> Callable[[], tuple[int, Iterator[Float32Array]]]:
    def open_utterance() -> tuple[int, Iterator[Float32Array]]:
        sample_rate, samples = utterance.load()
        return sample_rate, iter((samples,))

    return open_utterance
