"""Which hypothesis comes nearest to what was said? A bound on what any choice among them reaches.

Invariant: the same hypotheses, in another order.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless2/beam_search.py,
fast_beam_search_nbest_oracle.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from snowmelt.runtime.recognizer import RecognitionResult
from snowmelt.search.nbest import oracle
from snowmelt.text.tokenizer import Tokenizer

__all__ = ["Oracle"]


@dataclass(frozen=True)
class Oracle:
    """Knows what was said.

    Attributes:
        tokenizer: the model's.
        icefall_compat: as the original: the fewest wrong tokens, not the fewest wrong words. What
            is the nearest in tokens may have more wrong words than the best hypothesis. (Of equally
            near ones the original takes the one that was sampled last.)
    """

    tokenizer: Tokenizer
    icefall_compat: bool = False

    def nearest_first(
        self, nbest: Sequence[RecognitionResult], words: Sequence[str]
    ) -> tuple[RecognitionResult, ...]:
        """The nearest hypothesis, then the others in their order.

        Args:
            nbest: hypotheses of one utterance, the best first; of equally near ones that one wins
                whose errors are substitutions least often, then the best.
            words: what was said.
        """
        if self.icefall_compat:
            ids = self.tokenizer.encode(" ".join(words))
            said = [self.tokenizer.id_to_token[i] for i in ids]
            sequences = [result.tokens for result in nbest]
        else:
            said = list(words)
            sequences = [tuple(result.text.split()) for result in nbest]
        # The last of equally near ones would win.
        chosen = len(nbest) - 1 - oracle(sequences[::-1], said)
        return (nbest[chosen], *nbest[:chosen], *nbest[chosen + 1 :])
