"""Which streams are decoded together, and how are many sources of sound recognised side by side?

Streams join when there is room and leave when they end; each decoding step packs all streams
that have a whole window into one batch.

Invariant: a source that fails ends alone; the others' results do not change. At most `max_streams`
sources are open, and of each at most one block is held.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from snowmelt.audio.samples import Float32Array
from snowmelt.core.errors import UserError
from snowmelt.runtime.recognizer import OnlineRecognizer, RecognitionResult
from snowmelt.runtime.stream import OnlineStream

__all__ = ["AudioSource", "Outcome", "decode_ready", "recognize"]


@dataclass(frozen=True)
class AudioSource:
    """Something that can be heard.

    Attributes:
        name: what messages and results call it.
        open: gives the sample rate and the blocks of samples, (num_samples,) float32 each; may
            raise UserError, as may taking the next block.
    """

    name: str
    open: Callable[[], tuple[int, Iterator[Float32Array]]]


@dataclass(frozen=True)
class Outcome:
    """What became of a source: a result, or the reason why there is none.

    Attributes:
        index: place of the source among all sources, from 0.
        name: its name.
        nbest: what was recognised, the best hypothesis first; empty if the source failed.
        error: why it failed; None if it did not.
        duration_s: seconds of sound heard.
    """

    index: int
    name: str
    nbest: tuple[RecognitionResult, ...]
    error: UserError | None
    duration_s: float

    @property
    def result(self) -> RecognitionResult | None:
        """What was recognised; None if the source failed."""
        return self.nbest[0] if self.nbest else None


def decode_ready(
    recognizer: OnlineRecognizer, streams: Iterable[OnlineStream], max_batch_size: int
) -> list[OnlineStream]:
    """Advance every ready stream once, in batches of at most `max_batch_size`.

    Returns:
        the streams that were advanced, in their order.
    """
    ready = [stream for stream in streams if recognizer.is_ready(stream)]
    for start in range(0, len(ready), max_batch_size):
        recognizer.decode_streams(ready[start : start + max_batch_size])
    return ready


@dataclass
class _Live:
    index: int
    source: AudioSource
    stream: OnlineStream
    sample_rate: int = 0
    blocks: Iterator[Float32Array] = field(default_factory=lambda: iter(()))


def recognize(
    recognizer: OnlineRecognizer,
    sources: Iterable[AudioSource],
    *,
    max_streams: int,
    on_partial: Callable[[AudioSource, RecognitionResult], None] | None = None,
    num_nbest: int | None = 1,
) -> Iterator[Outcome]:
    """Recognise sources chunk by chunk, up to `max_streams` of them at a time.

    Args:
        recognizer: does the work.
        sources: opened in order, each when a stream has become free.
        max_streams: how many are packed into a batch.
        on_partial: called with the result so far after each step of a source.
        num_nbest: most hypotheses of an outcome, None for all; a search that knows one path has
            one.

    Yields:
        one outcome a source, in the order in which they end.
    """
    waiting = enumerate(sources)
    live: list[_Live] = []
    try:
        while True:
            joined = _join(recognizer, waiting, max_streams - len(live))
            live += joined
            if not live:
                return
            for entry in list(live):
                error = _feed(recognizer, entry)
                if error is not None:
                    live.remove(entry)
                    yield _failure(entry, error)
            advanced = decode_ready(recognizer, [entry.stream for entry in live], max_streams)
            if on_partial is not None:
                _report(recognizer, live, advanced, on_partial)
            for entry in [e for e in live if recognizer.is_final(e.stream)]:
                live.remove(entry)
                yield Outcome(
                    index=entry.index,
                    name=entry.source.name,
                    nbest=recognizer.get_nbest(entry.stream, num_nbest),
                    error=None,
                    duration_s=entry.stream.sound.duration_s,
                )
    finally:
        for entry in live:
            _close(entry.blocks)


def _join(
    recognizer: OnlineRecognizer, waiting: Iterator[tuple[int, AudioSource]], room: int
) -> list[_Live]:
    """As many new streams as there is room for."""
    return [
        _Live(index, source, recognizer.create_stream())
        for _, (index, source) in zip(range(room), waiting, strict=False)
    ]


def _feed(recognizer: OnlineRecognizer, entry: _Live) -> UserError | None:
    """Let a stream hear its source until it can be decoded; the error that ended it, if any."""
    try:
        if entry.sample_rate == 0:
            entry.sample_rate, entry.blocks = entry.source.open()
        while not recognizer.is_ready(entry.stream) and not entry.stream.sound.is_finished:
            block = next(entry.blocks, None)
            if block is None:
                entry.stream.input_finished()
            else:
                entry.stream.accept_waveform(entry.sample_rate, block)
    except UserError as error:
        _close(entry.blocks)
        return error
    return None


def _report(
    recognizer: OnlineRecognizer,
    live: Sequence[_Live],
    advanced: Sequence[OnlineStream],
    on_partial: Callable[[AudioSource, RecognitionResult], None],
) -> None:
    for entry in live:
        if any(entry.stream is stream for stream in advanced):
            on_partial(entry.source, recognizer.get_result_all(entry.stream))


def _failure(entry: _Live, error: UserError) -> Outcome:
    return Outcome(
        index=entry.index,
        name=entry.source.name,
        nbest=(),
        error=error,
        duration_s=entry.stream.sound.duration_s,
    )


def _close(blocks: Iterator[Float32Array]) -> None:
    """Close an open file now; a plain iterator has nothing to close."""
    close = getattr(blocks, "close", None)
    if close is not None:
        close()
