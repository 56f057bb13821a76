"""Which words does a model find in a test set when it hears it chunk by chunk?

Every utterance is a stream that joins when there is room, hears its sound in pieces of one chunk,
and leaves when it ends: what a server does.

Invariant: the same words as `evaluate/decode.py`, whatever the number of streams.
"""

from collections.abc import Iterator, Sequence

from snowmelt.audio.samples import Float32Array
from snowmelt.core.progress import progress_bar
from snowmelt.evaluate.partials import PartialLog
from snowmelt.evaluate.utterances import Hypothesis, Utterance
from snowmelt.presets.frames import FEATURE_FRAME_S
from snowmelt.runtime.recognizer import OnlineRecognizer
from snowmelt.runtime.scheduler import AudioSource, recognize

__all__ = ["streaming_decode"]


def streaming_decode(
    recognizer: OnlineRecognizer,
    utterances: Sequence[Utterance],
    *,
    num_decode_streams: int,
    num_nbest: int | None = 1,
    partials: PartialLog | None = None,
) -> list[Hypothesis]:
    """Recognise all utterances of a test set in real chunks.

    Args:
        recognizer: does the work.
        utterances: the test set.
        num_decode_streams: most utterances that are decoded side by side.
        num_nbest: most hypotheses of an utterance that are kept; None: all.
        partials: keeps what is shown while they are heard, for `evaluate/latency.py`.

    Returns:
        one an utterance, sorted by id.

    Raises:
        UserError: the sound of an utterance cannot be used.
    """
    chunk_s = recognizer.decode_chunk_len * FEATURE_FRAME_S
    sources = (_source(utterance, chunk_s) for utterance in utterances)
    rows: list[Hypothesis] = []
    if partials is not None:
        partials.begin(recognizer)
    with progress_bar("streaming", total=len(utterances)) as progress:
        for outcome in recognize(
            recognizer,
            sources,
            max_streams=num_decode_streams,
            num_nbest=num_nbest,
            on_partial=None if partials is None else partials.add,
        ):
            if outcome.error is not None:
                raise outcome.error
            rows.append(Hypothesis(utterances[outcome.index], outcome.nbest))
            progress.advance(1)
    return sorted(rows, key=lambda row: row.utterance.utterance_id)


def _source(utterance: Utterance, chunk_s: float) -> AudioSource:
    def open_utterance() -> tuple[int, Iterator[Float32Array]]:
        sample_rate, samples = utterance.load()
        step = max(1, round(chunk_s * sample_rate))
        return sample_rate, (samples[i : i + step] for i in range(0, len(samples), step))

    return AudioSource(utterance.utterance_id, open_utterance)
