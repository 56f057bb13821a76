"""The hypothesis nearest to what was said, in words, or in tokens as the original has it."""

from dataclasses import replace

from snowmelt.evaluate.decode import decode
from snowmelt.evaluate.oracle import Oracle
from snowmelt.runtime.recognizer import OfflineRecognizer
from snowmelt.search.fast_beam import FastBeamSearch
from snowmelt.search.nbest import NbestSearch
from snowmelt.text.tokenizer import build_chars
from snowmelt.text.wer import score
from tests.evaluate.corpus import hypothesis, tone_utterances, utterance
from tests.runtime.fakes import HIGH, LOW, FakeTokenizer, fake_model

_TOKENIZER = build_chars(["ABCDE"])


def _texts(oracle, said, *texts):
    spoken = hypothesis(utterance("u", said), *texts)
    return [result.text for result in oracle.nearest_first(spoken.nbest, said.split())]


def test_the_fewest_wrong_words_then_the_others_in_their_order():
    oracle = Oracle(_TOKENIZER)
    assert _texts(oracle, "A B C", "A", "A B", "D", "A B C D") == ["A B", "A", "D", "A B C D"]
    assert _texts(oracle, "A B", "A", "B") == ["A", "B"]
    assert _texts(oracle, "", "A B", "A") == ["A", "A B"]


def test_the_originals_counts_tokens():
    said = "AB CDE"
    near = hypothesis(utterance("u", said), "AB", "BB CDE E")
    results = [
        # As the characters of their words: "▁", "A", "B".
        _spelled(result)
        for result in near.nbest
    ]
    by_words = Oracle(_TOKENIZER).nearest_first(results, said.split())
    by_tokens = Oracle(_TOKENIZER, icefall_compat=True).nearest_first(results, said.split())
    assert by_words[0].text == "AB" and by_tokens[0].text == "BB CDE E"


def _spelled(result):
    ids = _TOKENIZER.encode(result.text)
    return replace(result, tokens=tuple(_TOKENIZER.id_to_token[i] for i in ids))


def test_decode_puts_the_nearest_of_all_paths_first():
    utterances = tone_utterances([[LOW, HIGH, LOW], [HIGH]])
    # Not what the best path says, but what some path does.
    utterances[0] = replace(utterances[0], words=["LOW", "LOW"])
    search = NbestSearch(FastBeamSearch(keeps_lattice=True), nbest_scale=0.1)
    recognizer = OfflineRecognizer(fake_model(), search=search)
    oracle = Oracle(FakeTokenizer())
    plain = decode(recognizer, utterances, max_duration=9.0, num_nbest=200)
    chosen = decode(recognizer, utterances, max_duration=9.0, num_nbest=2, oracle=oracle)
    for before, after in zip(plain, chosen, strict=True):
        said = before.utterance.words
        errors = [score([("u", said, result.text.split())]).errors for result in before.nbest]
        assert score([after.row]).errors == min(errors)
        assert len(after.nbest) == 2
        assert after.nbest[1] == before.nbest[after.nbest[0] == before.nbest[0]]
    assert score([row.row for row in chosen]).errors < score([row.row for row in plain]).errors
