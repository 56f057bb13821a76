"""What is made of a corpus's words? A vocabulary of pieces, a lexicon, grammars, search graphs.

Invariant: the same texts in the same order give the same files; names and text formats are those of
icefall's language folders.

Source: icefall, egs/librispeech/ASR/{prepare,prepare_lm}.sh.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from snowmelt.core.files import make_folder, write_bytes, write_text
from snowmelt.prepare.manifests import read_manifest, write_manifest
from snowmelt.text.tokenizer import load_tokenizer, train_bpe

__all__ = ["bpe_outputs", "write_bpe", "write_token_counts"]


def bpe_outputs(lang_dir: Path, vocab_size: int) -> tuple[Path, ...]:
    """The files that `write_bpe` makes for good; tokens.txt grows when a lexicon is made."""
    names = (
        "transcript_words.txt",
        f"unigram_{vocab_size}.model",
        f"unigram_{vocab_size}.vocab",
        "bpe.model",
        "bpe.vocab",
    )
    return tuple(lang_dir / name for name in names)


def write_bpe(texts: Iterable[str], lang_dir: Path, vocab_size: int) -> str:
    """Train a vocabulary of BPE pieces and write it as the original and sherpa-onnx want it.

    Args:
        texts: transcripts, one an utterance.
        lang_dir: for example data/lang_bpe_500.
        vocab_size: pieces, with the three special ones.

    Returns:
        What was made, in words.

    Raises:
        DataError: the texts do not fill a vocabulary of this size, or hold none.
    """
    make_folder(lang_dir)
    lines = list(texts)
    transcript, *_ = bpe_outputs(lang_dir, vocab_size)
    write_text(transcript, "".join(f"{line}\n" for line in lines))
    train_bpe(lines, vocab_size).save(lang_dir)
    model = (lang_dir / "bpe.model").read_bytes()
    vocab = _vocab_lines(model)
    write_bytes(lang_dir / f"unigram_{vocab_size}.model", model)
    for name in (f"unigram_{vocab_size}.vocab", "bpe.vocab"):
        write_text(lang_dir / name, vocab)
    return f"{lang_dir.name}: {vocab_size} pieces of {len(lines)} transcripts"


def write_token_counts(cuts: Sequence[Path], lang_dir: Path, counts: Path) -> str:
    """Frames and tokens of every cut: what tells how long a batch will be.

    Args:
        cuts: manifests of cuts.
        lang_dir: the vocabulary.
        counts: JSON lines to write, `id`, `num_frames`, `num_tokens`, in the order of the cuts.

    Returns:
        The sums, in words.
    """
    tokenizer = load_tokenizer(lang_dir / "bpe.model")
    num_frames = num_tokens = num_unknown = 0

    def lines() -> Iterator[dict[str, Any]]:
        nonlocal num_frames, num_tokens, num_unknown
        for manifest in cuts:
            for cut in read_manifest(manifest):
                frames = (cut.get("features") or cut["custom"])["num_frames"]
                tokens = tokenizer.encode(cut["supervisions"][0]["text"])
                num_frames += frames
                num_tokens += len(tokens)
                num_unknown += tokens.count(tokenizer.unk_id)
                yield {"id": cut["id"], "num_frames": frames, "num_tokens": len(tokens)}

    write_manifest(counts, lines())
    unknown = f", {num_unknown} of them unknown" if num_unknown else ""
    return f"{num_frames} frames and {num_tokens} tokens{unknown}"


def _vocab_lines(model: bytes) -> str:
    """What sentencepiece writes as .vocab: a piece and its log probability a line."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = range(processor.get_piece_size())
    return "".join(f"{processor.id_to_piece(n)}\t{processor.get_score(n):g}\n" for n in pieces)
