"""Which steps does the preparation of GigaSpeech have?

Stages have the numbers of icefall's prepare_giga_speech.sh. Training subsets are split into pieces
of some long recordings each: a piece is what a killed run loses at most.

Invariant: building a plan reads and writes nothing.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from lhotse import MonoCut

from snowmelt.core.errors import DataError
from snowmelt.prepare.cuts_step import cuts_step
from snowmelt.prepare.features import write_cuts_with_features
from snowmelt.prepare.gigaspeech import (
    METADATA,
    write_pieces,
    write_raw_cuts,
    write_subset_manifests,
)
from snowmelt.prepare.manifests import ManifestWriter, portable_path, read_lines, read_manifest
from snowmelt.prepare.pipeline import Step
from snowmelt.prepare.places import Places

__all__ = ["gigaspeech_steps"]

_EVALUATION: Final = ("DEV", "TEST")
# 37,956 recordings of XL make 1,998 pieces.
_RECORDINGS_PER_PIECE: Final = 19


def gigaspeech_steps(
    places: Places, subsets: Sequence[str], *, has_stored_features: bool = True
) -> list[Step]:
    """The preparation of GigaSpeech.

    Args:
        places: where things are.
        subsets: training subsets, XS to XL; DEV and TEST are always prepared.
        has_stored_features: whether features are computed now, or later from the sound.
    """
    corpus = places.downloads / "GigaSpeech"
    steps = [_corpus_step(corpus)]
    for subset in (*subsets, *_EVALUATION):
        steps += [_manifests_step(places, corpus, subset), _clean_step(places, subset)]
    for subset in _EVALUATION:
        steps.append(
            cuts_step(
                places,
                stage=3,
                name=subset,
                cuts=partial(_located, places, _raw(places, subset)),
                manifest=places.fbank / f"gigaspeech_cuts_{subset}.jsonl.gz",
                folder=places.fbank / f"gigaspeech_feats_{subset}",
                has_stored_features=has_stored_features,
                needs=(f"clean-{subset}",),
                settings={},
            )
        )
    for subset in subsets:
        steps.append(_split_step(places, subset))
        if has_stored_features:
            steps += [_pieces_step(places, subset), _join_step(places, subset)]
    return sorted(steps, key=lambda step: step.stage)


def _corpus_step(corpus: Path) -> Step:
    metadata = corpus / METADATA

    def make() -> str:
        raise DataError(
            f"{metadata} does not exist",
            "GigaSpeech is had from its owners, with a password: put its folder into --dl-dir",
        )

    return Step(
        stage=0,
        name="corpus",
        title="GigaSpeech itself",
        outputs=(),
        make=make,
        is_there=metadata.is_file,
    )


def _manifests_step(places: Places, corpus: Path, subset: str) -> Step:
    kinds = ("recordings", "supervisions", "cuts")

    def metadata_state() -> str | None:
        metadata = corpus / METADATA
        return str(metadata.stat().st_size) if metadata.is_file() else None

    return Step(
        stage=1,
        name=f"manifests-{subset}",
        title=f"manifests of {subset}",
        outputs=tuple(_manifest(places, kind, subset) for kind in kinds),
        make=partial(write_subset_manifests, corpus, places.manifests, subset),
        settings={"source": portable_path(corpus, places.manifests)},
        needs=("corpus",),
        inputs=metadata_state,
    )


def _clean_step(places: Places, subset: str) -> Step:
    raw = _raw(places, subset)
    return Step(
        stage=2,
        name=f"clean-{subset}",
        title=f"clean transcripts of {subset}",
        outputs=(raw,),
        make=partial(write_raw_cuts, _manifest(places, "cuts", subset), raw),
        needs=(f"manifests-{subset}",),
    )


def _split_step(places: Places, subset: str) -> Step:
    folder = _pieces_folder(places, subset)

    def make() -> str:
        raw = _raw(places, subset)
        num_pieces = write_pieces(raw, folder, subset, _RECORDINGS_PER_PIECE)
        return f"{subset}: {num_pieces} pieces"

    return Step(
        stage=4,
        name=f"split-{subset}",
        title=f"pieces of {subset}",
        outputs=(),
        make=make,
        needs=(f"clean-{subset}",),
        scratch=(folder,),
    )


def _pieces_step(places: Places, subset: str) -> Step:
    features = places.fbank / f"gigaspeech_feats_{subset}"

    def make() -> str:
        num_cuts, hours = 0, 0.0
        for raw in _pieces(places, subset, "_raw"):
            piece = raw.with_name(raw.name.replace("_raw.", "."))
            counts = write_cuts_with_features(
                partial(_located, places, raw),
                piece,
                features / raw.name.split(".")[1],
                places.fbank,
                source=places.source,
                title=f"features of {piece.name}",
                workers=places.workers,
            )
            num_cuts += counts.cuts
            hours += counts.hours
        return f"{subset}: {num_cuts} cuts with features, {hours:.3f} h"

    return Step(
        stage=5,
        name=f"pieces-{subset}",
        title=f"features of the pieces of {subset}",
        outputs=(),
        make=make,
        needs=(f"split-{subset}",),
        scratch=(features,),
        more_outputs=partial(_pieces, places, subset, ""),
    )


def _join_step(places: Places, subset: str) -> Step:
    joined = places.fbank / f"gigaspeech_cuts_{subset}.jsonl.gz"

    def make() -> str:
        with ManifestWriter(joined) as writer:
            for piece in _pieces(places, subset, ""):
                for line in read_lines(piece):
                    writer.write_line(line.rstrip("\n"))
        return ""

    return Step(
        stage=6,
        name=f"join-{subset}",
        title=f"{subset} in one manifest",
        outputs=(joined,),
        make=make,
        needs=(f"pieces-{subset}",),
    )


def _located(places: Places, manifest: Path) -> Iterator[MonoCut]:
    """The cuts of a manifest in `places.fbank`, with paths that lead from here to their sound."""
    for item in read_manifest(manifest):
        cut = MonoCut.from_dict(item)
        source = cut.recording.sources[0]
        source.source = os.path.normpath(places.fbank / source.source)
        yield cut


def _pieces(places: Places, subset: str, kind: str) -> list[Path]:
    name = f"gigaspeech_cuts_{subset}{kind}.*.jsonl.gz"
    return sorted(_pieces_folder(places, subset).glob(name))


def _pieces_folder(places: Places, subset: str) -> Path:
    # What the original calls it, whatever the number of pieces turns out to be.
    return places.fbank / f"gigaspeech_{subset}_split_2000"


def _raw(places: Places, subset: str) -> Path:
    return places.fbank / f"gigaspeech_cuts_{subset}_raw.jsonl.gz"


def _manifest(places: Places, kind: str, subset: str) -> Path:
    return places.manifests / f"gigaspeech_{kind}_{subset}.jsonl.gz"
