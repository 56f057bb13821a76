"""Which words does a model find in a test set, whole utterances at a time (simulated streaming)?

The encoder sees an utterance at once (attention with the chunk mask of streaming), which is faster
than `evaluate/streaming.py` and gives the same words.

Not to be confused with `models/decoder.py`, the prediction network, nor with `search/`, which turns
encoder output into tokens.

Invariant: batches change the speed only, never a result.
"""

from collections.abc import Iterator, Sequence

from snowmelt.core.progress import progress_bar
from snowmelt.evaluate.oracle import Oracle
from snowmelt.evaluate.utterances import Hypothesis, Utterance
from snowmelt.runtime.recognizer import OfflineRecognizer

__all__ = ["decode"]


def decode(
    recognizer: OfflineRecognizer,
    utterances: Sequence[Utterance],
    *,
    max_duration: float,
    num_nbest: int | None = 1,
    oracle: Oracle | None = None,
) -> list[Hypothesis]:
    """Recognise all utterances of a test set.

    Args:
        recognizer: does the work.
        utterances: the test set.
        max_duration: seconds of sound in a batch, padding included; an utterance that is longer
            is a batch of its own.
        num_nbest: most hypotheses of an utterance that are kept; None: all.
        oracle: puts the hypothesis first that is nearest to what was said; None leaves the best
            there.

    Returns:
        one an utterance, sorted by id.

    Raises:
        UserError: the sound of an utterance cannot be used.
    """
    rows: list[Hypothesis] = []
    with progress_bar("decoding", total=len(utterances)) as progress:
        for batch in _batches(utterances, max_duration):
            streams = []
            for utterance in batch:
                stream = recognizer.create_stream()
                stream.accept_waveform(*utterance.load())
                streams.append(stream)
            recognizer.decode_streams(streams)
            for utterance, stream in zip(batch, streams, strict=True):
                if oracle is None:
                    nbest = recognizer.get_nbest(stream, num_nbest)
                else:
                    nbest = recognizer.get_nbest(stream, None)
                    nbest = oracle.nearest_first(nbest, utterance.words)[:num_nbest]
                rows.append(Hypothesis(utterance, nbest))
            progress.advance(len(batch))
    return sorted(rows, key=lambda row: row.utterance.utterance_id)


def _batches(utterances: Sequence[Utterance], max_duration: float) -> Iterator[list[Utterance]]:
    """Longest first, so that a batch too large for the memory fails at once and not at the end."""
    batch: list[Utterance] = []
    for utterance in sorted(utterances, key=lambda u: (-u.duration_s, u.utterance_id)):
        if batch and (len(batch) + 1) * batch[0].duration_s > max_duration:
            yield batch
            batch = []
        batch.append(utterance)
    if batch:
        yield batch
