"""Which steps lead from texts and a lexicon to grammars and search graphs?

Stages have the numbers of icefall's scripts: -1, 5 and 6 are prepare.sh's, 10 + n is stage n of
prepare_lm.sh. Its stages 2 (graphs for CTC) and 5 to 8 (texts for neural models) have no steps.

Invariant: building a plan reads and writes nothing.
"""

import gzip
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from snowmelt.core.errors import DataError
from snowmelt.core.files import require_file
from snowmelt.prepare.download import Archive, fetch
from snowmelt.prepare.language import bpe_outputs, write_bpe, write_token_counts
from snowmelt.prepare.pipeline import Step
from snowmelt.prepare.places import Places
from snowmelt.text.lang import (
    LG_FILE,
    write_bpe_lexicon,
    write_grammar,
    write_lg,
    write_phone_lang,
    write_token_ngram,
    write_word_arpa,
)

__all__ = ["graph_steps", "vocabulary_steps"]

_LEXICON: Final = "librispeech-lexicon.txt"
_WORDS: Final = "librispeech-vocab.txt"
_TEXT: Final = "librispeech-lm-norm.txt.gz"
_ARPA: Final = {3: "3-gram.pruned.1e-7.arpa.gz", 4: "4-gram.arpa.gz"}
_FILES: Final = (*_ARPA.values(), _WORDS, _LEXICON, _TEXT)

_TOKEN_ORDERS: Final = (2, 3, 4, 5)
_FETCH_HINT: Final = "fetch it (--stage -1), or put one of your own there"


def vocabulary_steps(
    places: Places,
    vocab_size: int,
    *,
    parts: Sequence[str],
    texts: Callable[[], Iterable[str]],
    text_steps: Sequence[str],
    cuts: Sequence[Path],
    cut_steps: Sequence[str],
) -> list[Step]:
    """Stage 5: a BPE vocabulary, and how many tokens and frames every cut has.

    Args:
        places: where things are.
        vocab_size: pieces.
        parts: names of the parts that the texts are of.
        texts: gives the transcripts to learn from.
        text_steps: names of the steps that make what `texts` reads.
        cuts: manifests of cuts to count.
        cut_steps: names of the steps that make them.
    """
    lang_dir = places.lang(vocab_size)
    counts = lang_dir / "counts.jsonl.gz"
    return [
        Step(
            stage=5,
            name=f"bpe-{vocab_size}",
            title=f"BPE vocabulary of {vocab_size} pieces",
            outputs=bpe_outputs(lang_dir, vocab_size),
            make=lambda: write_bpe(texts(), lang_dir, vocab_size),
            settings={"parts": list(parts)},
            needs=tuple(text_steps),
        ),
        Step(
            stage=5,
            name=f"counts-{vocab_size}",
            title=f"frames and tokens of every cut, {vocab_size} pieces",
            outputs=(counts,),
            make=partial(write_token_counts, cuts, lang_dir, counts),
            needs=(f"bpe-{vocab_size}", *cut_steps),
        ),
    ]


def graph_steps(places: Places, vocab_sizes: Sequence[int]) -> list[Step]:
    """Stages -1 (fetch), 6 (phone lexicon), 10 (BPE lexicon), 11 (grammars), 13 (LG), 14 (n-grams).

    A grammar is made of the n-gram model that was fetched; where there is none, of one that is
    estimated from the text in the same place.

    Args:
        places: where things are.
        vocab_sizes: sizes of the vocabularies that lexicon and graph are made for.
    """
    steps = [_fetch_step(places, name) for name in _FILES]
    steps.append(_phone_step(places))
    steps += [_grammar_step(places, order) for order in _ARPA]
    for vocab_size in vocab_sizes:
        steps += _bpe_graph_steps(places, vocab_size)
    return steps


def _fetch_step(places: Places, name: str) -> Step:
    archive = Archive(
        url=f"{places.base_url}/11/{name}",
        path=_lm(places) / name,
        member="",
        checksums_url="",
    )

    def make() -> str:
        fetch(archive.url, archive.path)
        return ""

    return Step(
        stage=-1,
        name=f"fetch-{name}",
        title=name,
        outputs=(),
        make=make,
        is_there=lambda: _plain_or_packed(archive.path) is not None,
        archive=archive,
    )


def _phone_step(places: Places) -> Step:
    lexicon = _lm(places) / _LEXICON
    words = _lm(places) / _WORDS
    names = ("lexicon.txt", "lexicon_disambig.txt", "tokens.txt", "words.txt")

    def make() -> str:
        require_file(lexicon, "the phone lexicon", error=DataError, hint=_FETCH_HINT)
        more = words.read_text(encoding="utf-8").split() if words.is_file() else []
        return write_phone_lang(lexicon, _phone_lang(places), more)

    return Step(
        stage=6,
        name="lang-phone",
        title="phone lexicon and list of words",
        outputs=tuple(_phone_lang(places) / name for name in names),
        make=make,
        inputs=lambda: _sizes([lexicon, words]) if lexicon.is_file() else None,
    )


def _bpe_graph_steps(places: Places, vocab_size: int) -> list[Step]:
    lang_dir = places.lang(vocab_size)
    lexicon_files = ("words.txt", "lexicon.txt", "lexicon_disambig.txt", "tokens.txt")
    steps = [
        Step(
            stage=10,
            name=f"lexicon-{vocab_size}",
            title=f"lexicon of {vocab_size} pieces",
            outputs=tuple(lang_dir / name for name in lexicon_files),
            make=partial(write_bpe_lexicon, _phone_lang(places) / "words.txt", lang_dir),
            needs=("lang-phone", f"bpe-{vocab_size}"),
        ),
        Step(
            stage=13,
            name=f"lg-{vocab_size}",
            title=f"search graph of {vocab_size} pieces",
            outputs=(lang_dir / LG_FILE,),
            make=partial(write_lg, lang_dir, _grammar(places, 3)),
            needs=(f"lexicon-{vocab_size}", "grammar-3"),
        ),
    ]
    for order in _TOKEN_ORDERS:
        steps.append(
            Step(
                stage=14,
                name=f"ngram-{vocab_size}-{order}",
                title=f"{order}-grams of {vocab_size} pieces",
                outputs=tuple(lang_dir / f"{order}gram.{end}" for end in ("arpa", "fst.txt")),
                make=partial(write_token_ngram, lang_dir / "transcript_words.txt", lang_dir, order),
                needs=(f"lexicon-{vocab_size}",),
            )
        )
    return steps


def _grammar_step(places: Places, order: int) -> Step:
    words = _phone_lang(places) / "words.txt"
    published = _lm(places) / _ARPA[order]
    text = _lm(places) / _TEXT

    def sources() -> list[Path]:
        arpa = _plain_or_packed(published)
        return [path for path in (arpa or _plain_or_packed(text),) if path is not None]

    def make() -> str:
        arpa = _plain_or_packed(published)
        made = []
        if arpa is None:
            source = _plain_or_packed(text)
            if source is None:
                raise DataError(
                    f"there is neither {published} nor a text ({text}) to estimate one from",
                    _FETCH_HINT,
                )
            arpa = places.data / "lm" / f"{order}-gram.arpa"
            made.append(write_word_arpa(_lines(source), words, arpa, order))
        made.append(write_grammar(arpa, words, _grammar(places, order)))
        return ", ".join(made)

    return Step(
        stage=11,
        name=f"grammar-{order}",
        title=f"word grammar of {order}-grams",
        outputs=(_grammar(places, order),),
        make=make,
        needs=("lang-phone",),
        inputs=lambda: _sizes(sources()) if sources() else None,
    )


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text, plain or gzip."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield line.rstrip("\n")
    except (gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"the text {path} is damaged: {error}", "fetch it again") from error


def _plain_or_packed(path: Path) -> Path | None:
    """A file that is published with gzip and may lie there unpacked."""
    candidates = (path.with_suffix("") if path.suffix == ".gz" else path, path)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _sizes(paths: Iterable[Path]) -> str:
    return ", ".join(f"{path.name} {path.stat().st_size}" for path in paths if path.is_file())


def _lm(places: Places) -> Path:
    return places.downloads / "lm"


def _phone_lang(places: Places) -> Path:
    return places.data / "lang_phone"


def _grammar(places: Places, order: int) -> Path:
    return places.data / "lm" / f"G_{order}_gram.fst.txt"
