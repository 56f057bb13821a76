"""Does a trained model say the same in every runtime? Prints two tables; asserts nothing.

    python -m benchmarks.equivalence --exp-dir runs/an4 --cuts test --data-dir data
        [--epoch N --avg N] [--decode-chunk-len 32] [--num-utterances N]

The first table: largest differences of the frames that the joiner gets, of every form against the
eager model on whole utterances. The second: utterances for which sherpa-onnx, with the exported
files and its own features, finds the same words and token times, greedily and with
modified_beam_search. Of those that differ it says how close our two best scores are: for the greedy
search the closest two tokens on any frame, for the beam the two best hypotheses, each score divided
by its length.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.foreign import sherpa_results
from snowmelt.cli.recognition_options import add_weights_options, weights_choice
from snowmelt.export.equivalence import differences, forms_of
from snowmelt.export.gate_set import GateCuts, gate_utterances
from snowmelt.export.run import Forms, Source, export
from snowmelt.runtime.backend import SpeechModel
from snowmelt.runtime.load import LoadedTransducer, WeightsChoice, load_model, load_transducer
from snowmelt.runtime.recognizer import OnlineRecognizer
from snowmelt.runtime.scheduler import AudioSource, recognize
from snowmelt.runtime.stream import FeatureStream
from snowmelt.search.greedy import GreedySearch
from snowmelt.search.method import SearchMethod
from snowmelt.search.modified_beam import ModifiedBeamSearch

# Scores that are closer may be told apart otherwise by another runtime.
_CLOSE: Final = 1e-3

# Two frames of rounding to hundredths.
_TIME_TOLERANCE_S: Final = 2e-3

_SEARCHES: Final[dict[str, SearchMethod[Any]]] = {
    "greedy_search": GreedySearch(),
    "modified_beam_search": ModifiedBeamSearch(beam=4),
}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exp-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--cuts", default="dev", help="dev, test, train, or a manifest of cuts")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR")
    parser.add_argument("--num-utterances", type=int, metavar="N", help="(default: all)")
    add_weights_options(parser)
    args = parser.parse_args()
    chosen = weights_choice(args)
    weights = None if chosen == WeightsChoice() else chosen
    chunk_len = args.decode_chunk_len
    loaded = load_transducer(args.exp_dir, weights=weights, decode_chunk_len=chunk_len)
    utterances = gate_utterances(
        GateCuts(args.cuts, data_dir=args.data_dir), loaded.config.data, loaded.head
    )[: args.num_utterances]
    sounds = [utterance.load()[1] for utterance in utterances]
    names = [utterance.name for utterance in utterances]
    print(
        f"{loaded.weights}; {args.cuts}: {len(sounds)} utterances; chunks of "
        f"{loaded.config.model.decode_chunk_len} frames"
    )
    _print_frames(loaded, names, sounds)
    source = Source(args.exp_dir, weights, decode_chunk_len=chunk_len)
    with tempfile.TemporaryDirectory() as folder:
        list(export(source, Forms(onnx=True), Path(folder)))
        _print_words(Path(folder), names, sounds)


def _print_frames(
    loaded: LoadedTransducer, names: Sequence[str], sounds: Sequence[np.ndarray]
) -> None:
    forms = forms_of(loaded)
    backend = forms["eager"]
    config = loaded.config
    features = []
    for sound in sounds:
        stream = FeatureStream(
            config.features,
            decode_chunk_len=backend.decode_chunk_len,
            window_overlap=backend.front_end.window_overlap,
            min_tail_s=config.min_tail_s,
        )
        stream.accept_waveform(16000, sound)
        stream.input_finished()
        features.append(stream.frames(0, stream.num_frames_ready))
    print("\n| form | utterances | max abs difference | where |\n| --- | --- | --- | --- |")
    for row in differences(forms, features, backend.decode_chunk_len):
        print(f"| {row.form} | {row.how} | {row.largest:.1e} | {names[row.worst]} |", flush=True)


def _print_words(folder: Path, names: Sequence[str], sounds: Sequence[np.ndarray]) -> None:
    model = load_model(folder)
    (encoder,) = folder.glob("encoder*.onnx")
    files = {
        part: encoder.with_name(encoder.name.replace("encoder", part, 1))
        for part in ("encoder", "decoder", "joiner")
    }
    print("\n| search | utterances | same words and times | others, and how close |")
    print("| --- | --- | --- | --- |")
    for method, search in _SEARCHES.items():
        theirs = sherpa_results(files, folder / "tokens.txt", model, sounds, method)
        ours = _results(model, search, sounds)
        others = []
        for n, (own, foreign) in enumerate(zip(ours, theirs, strict=True)):
            has_same_times = len(own.timestamps) == len(foreign.timestamps) and np.allclose(
                own.timestamps, foreign.timestamps, atol=_TIME_TOLERANCE_S, rtol=0
            )
            if own.text.split() != foreign.text.split() or not has_same_times:
                others.append((n, _margin(model, search, sounds[n])))
        close = sum(margin < _CLOSE for _, margin in others)
        listed = ", ".join(f"{names[n]} {margin:.1e}" for n, margin in others)
        same = len(sounds) - len(others)
        print(f"| {method} | {len(sounds)} | {same} | {close} within {_CLOSE:g}: {listed} |")
        for n, _ in others:
            print(f"  {names[n]}: ours {ours[n].text!r}, sherpa-onnx {theirs[n].text!r}")


def _results(model: SpeechModel, search: SearchMethod[Any], sounds: Sequence[np.ndarray]) -> Any:
    sources = [AudioSource(str(n), lambda s=s: (16000, iter((s,)))) for n, s in enumerate(sounds)]
    outcomes = list(recognize(OnlineRecognizer(model, search=search), sources, max_streams=8))
    return [outcome.result for outcome in sorted(outcomes, key=lambda o: o.index)]


class _Watched:
    """A scorer that remembers how close the two best tokens ever were."""

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer
        self.margin = np.inf

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scorer, name)

    def join(self, encoder_proj: np.ndarray, decoder_proj: np.ndarray) -> np.ndarray:
        logits: np.ndarray = self._scorer.join(encoder_proj, decoder_proj)
        best = np.sort(logits, axis=1)[:, -2:]
        self.margin = min(self.margin, float((best[:, 1] - best[:, 0]).min(initial=np.inf)))
        return logits


def _margin(model: SpeechModel, search: SearchMethod[Any], sound: np.ndarray) -> float:
    """How close our two best were; see the head of this file."""
    backend = model.backend
    stream = FeatureStream(
        model.features,
        decode_chunk_len=backend.decode_chunk_len,
        window_overlap=backend.front_end.window_overlap,
        min_tail_s=model.min_tail_s,
    )
    stream.accept_waveform(16000, sound)
    stream.input_finished()
    num_frames = stream.num_frames_ready
    features = stream.frames(0, num_frames)[np.newaxis]
    encoder_proj, lens = backend.encode_whole(features, np.array([num_frames]))
    scorer = _Watched(backend.scorer)
    (state,) = search.step(scorer, encoder_proj, lens, [search.init_state(scorer)])
    if not isinstance(search, ModifiedBeamSearch):
        return scorer.margin
    scores = sorted(
        (
            found.log_prob / (len(found.tokens) + scorer.context_size)
            for found in search.n_best(scorer, state, is_final=True)
            if found.log_prob is not None
        ),
        reverse=True,
    )
    return scores[0] - scores[1] if len(scores) > 1 else float("inf")


if __name__ == "__main__":
    main()
