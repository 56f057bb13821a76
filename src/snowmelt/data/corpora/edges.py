"""Is a word lost where an utterance is cut off right at its first or last sound?

Every test set of a corpus becomes two. Utterances of `<corpus>-<test set>-cut` begin with the
first sound of their first word and end with the last of their last word;
`<corpus>-<test set>-silence` has the same with silence around them. Words that are lost in the one
and not in the other are lost to the cut.

Invariant: the samples between are those of the corpus; nothing is written.
"""

from collections.abc import Callable, Iterable
from typing import Final

from lhotse import CutSet
from lhotse.cut import Cut

from snowmelt.core.errors import DataError
from snowmelt.data.cuts import AudioCache
from snowmelt.data.edges import cut_at_the_edges

__all__ = ["SUFFIX", "EdgeCorpus"]

SUFFIX: Final = "-edges"

# A chunk and more on either side: nothing is missing that could be there.
_SILENCE_S: Final = 0.5

_KINDS: Final = ("cut", "silence")


class EdgeCorpus:
    """The test sets of another corpus, cut at the edges; see `snowmelt.data.corpora.Corpus`.

    Args:
        name: of the other corpus.
        test_sets: its test sets.
        cuts: the utterances of one of them.
    """

    varies_with_epoch: Final = False
    known_defects: Final = frozenset[str]()

    def __init__(
        self, name: str, test_sets: tuple[str, ...], cuts: Callable[[str], CutSet]
    ) -> None:
        self.name: Final = name + SUFFIX
        self._splits: Final = {
            f"{name}-{source}-{kind}": (source, kind) for source in test_sets for kind in _KINDS
        }
        self._cuts = cuts

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Two for each of the corpus: digits-test-cut and digits-test-silence."""
        return tuple(self._splits)

    def cuts(self, split: str, epoch: int = 0) -> CutSet:
        """The utterances of a test set; "test" is all of them, "dev" the dev set, cut.

        Raises:
            DataError: there is no such split.
            UserError: the sound of an utterance cannot be used.
        """
        if split == "test":
            return CutSet.from_cuts(cut for name in self.test_sets for cut in self.cuts(name))
        if split not in (*self._splits, "dev"):
            raise DataError(
                f"{self.name} has no split {split!r}", f"choose dev, {', '.join(self.test_sets)}"
            )
        source, kind = self._splits.get(split, ("dev", "cut"))
        cache = AudioCache(max_bytes=0)
        cuts: Iterable[Cut] = (cut_at_the_edges(cut, cache) for cut in self._cuts(source))
        if kind == "silence":
            cuts = (_in_silence(cut) for cut in cuts)
        return CutSet.from_cuts(cut.with_id(f"{cut.id}-{kind}") for cut in cuts)


def _in_silence(cut: Cut) -> Cut:
    whole = cut.duration + 2 * _SILENCE_S
    padded: Cut = cut.pad(duration=whole, direction="both", preserve_id=True)
    return padded
