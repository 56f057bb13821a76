"""Which steps does the preparation of LibriSpeech and of MUSAN have?

Stages have the numbers of icefall's scripts: -1 to 6 are prepare.sh's, 10 + n is stage n of
prepare_lm.sh.

Invariant: building a plan reads and writes nothing.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from snowmelt.core.errors import ConfigError
from snowmelt.prepare.cuts_step import cuts_step
from snowmelt.prepare.download import Archive, bring_folder
from snowmelt.prepare.language_plan import graph_steps, vocabulary_steps
from snowmelt.prepare.librispeech import (
    SPEED_FACTORS,
    chapter_fingerprint,
    is_training_part,
    part_cuts,
    part_texts,
    write_part_manifests,
    write_shuffled,
)
from snowmelt.prepare.manifests import portable_path
from snowmelt.prepare.musan import KINDS, noise_cuts, noise_fingerprint, write_noise_manifests
from snowmelt.prepare.pipeline import Step
from snowmelt.prepare.places import Places

__all__ = ["librispeech_parts", "librispeech_steps", "musan_steps"]

_FULL: Final = ("train-clean-100", "train-clean-360", "train-other-500")
_EVALUATION: Final = ("dev-clean", "dev-other", "test-clean", "test-other")
_MINI: Final = ("train-clean-5", "dev-clean-2")
_LIBRISPEECH: Final = "LibriSpeech"


def librispeech_parts(
    *, full_libri: bool = True, mini_libri: bool = False, parts: Sequence[str] = ()
) -> tuple[str, ...]:
    """Names of the parts to prepare; `parts` comes before `mini_libri`, and that before all.

    Raises:
        ConfigError: a name is none.
    """
    for part in parts:
        if not part or part.startswith(".") or "/" in part:
            raise ConfigError(f"{part!r} is no name of a part", "write --parts 'dev-clean ...'")
    if parts:
        return tuple(dict.fromkeys(parts))
    if mini_libri:
        return _MINI
    return _FULL + _EVALUATION if full_libri else (_FULL[0], *_EVALUATION)


def librispeech_steps(
    places: Places,
    parts: Sequence[str],
    *,
    vocab_sizes: Sequence[int] = (500,),
    perturb_speed: bool = True,
    has_stored_features: bool = True,
    with_noise: bool = True,
) -> list[Step]:
    """The preparation of LibriSpeech.

    Args:
        places: where things are.
        parts: folders below LibriSpeech.
        vocab_sizes: a vocabulary is trained for each.
        perturb_speed: whether training parts get copies at 0.9 and 1.1 times the speed.
        has_stored_features: whether features are computed now, or later from the sound.
        with_noise: whether MUSAN is prepared too.
    """
    steps = [_download_step(places, part) for part in parts]
    for part in parts:
        steps += _part_steps(places, part, perturb_speed, has_stored_features)
    if set(_FULL) <= set(parts):
        steps.append(_shuffle_step(places))
    if with_noise:
        steps += musan_steps(places, has_stored_features=has_stored_features)
    training = [part for part in parts if is_training_part(part)]
    if training:
        for vocab_size in vocab_sizes:
            steps += vocabulary_steps(
                places,
                vocab_size,
                parts=training,
                texts=partial(_texts, places, training),
                text_steps=[f"manifests-{part}" for part in training],
                cuts=[_part_manifest(places, part) for part in parts],
                cut_steps=[f"cuts-{part}" for part in parts],
            )
        steps += graph_steps(places, vocab_sizes)
    return sorted(steps, key=lambda step: step.stage)


def musan_steps(places: Places, *, has_stored_features: bool = True) -> list[Step]:
    """The preparation of MUSAN: stages 0, 2 and 4."""
    folder = places.downloads / "musan"
    recordings = [places.manifests / f"musan_recordings_{kind}.jsonl.gz" for kind in KINDS]
    cuts = places.fbank / "musan_cuts.jsonl.gz"
    archive = Archive(
        url=f"{places.base_url}/17/musan.tar.gz",
        path=places.downloads / "musan.tar.gz",
        member="musan",
        checksums_url="",
    )
    return [
        _archive_step("download-musan", archive, places),
        Step(
            stage=2,
            name="manifests-musan",
            title="manifests of MUSAN",
            outputs=tuple(recordings),
            make=partial(write_noise_manifests, folder, recordings, places.workers),
            needs=("download-musan",),
            inputs=partial(noise_fingerprint, folder),
        ),
        cuts_step(
            places,
            stage=4,
            name="musan",
            cuts=partial(noise_cuts, recordings),
            manifest=cuts,
            folder=places.fbank / "musan_feats",
            has_stored_features=has_stored_features,
            needs=("manifests-musan",),
            settings={},
        ),
    ]


def _download_step(places: Places, part: str) -> Step:
    resource = 31 if part in _MINI else 12
    archive = Archive(
        url=f"{places.base_url}/{resource}/{part}.tar.gz",
        path=places.downloads / f"{part}.tar.gz",
        member=f"{_LIBRISPEECH}/{part}",
        checksums_url=f"{places.base_url}/{resource}/md5sum.txt",
    )
    return _archive_step(f"download-{part}", archive, places)


def _archive_step(name: str, archive: Archive, places: Places) -> Step:
    folder = places.downloads / archive.member

    def make() -> str:
        bring_folder(archive, places.downloads)
        return ""

    return Step(
        stage=0,
        name=name,
        title=f"sound of {folder.name}",
        outputs=(),
        make=make,
        is_there=folder.is_dir,
        archive=archive,
    )


def _part_steps(
    places: Places, part: str, perturb_speed: bool, has_stored_features: bool
) -> list[Step]:
    folder = places.downloads / _LIBRISPEECH / part
    recordings = places.manifests / f"librispeech_recordings_{part}.jsonl.gz"
    supervisions = places.manifests / f"librispeech_supervisions_{part}.jsonl.gz"
    factors = SPEED_FACTORS if perturb_speed and is_training_part(part) else ()
    return [
        Step(
            stage=1,
            name=f"manifests-{part}",
            title=f"manifests of {part}",
            outputs=(recordings, supervisions),
            make=partial(write_part_manifests, folder, recordings, supervisions, places.workers),
            settings={"source": portable_path(folder, places.manifests)},
            needs=(f"download-{part}",),
            inputs=partial(chapter_fingerprint, folder),
        ),
        cuts_step(
            places,
            stage=3,
            name=part,
            cuts=partial(part_cuts, recordings, supervisions, factors),
            manifest=_part_manifest(places, part),
            folder=places.fbank / f"librispeech_feats_{part}",
            has_stored_features=has_stored_features,
            needs=(f"manifests-{part}",),
            settings={"speed": list(factors)},
        ),
    ]


def _shuffle_step(places: Places) -> Step:
    shuffled = _part_manifest(places, "train-all-shuf")
    return Step(
        stage=3,
        name="shuffle",
        title="all training cuts in random order",
        outputs=(shuffled,),
        make=partial(write_shuffled, [_part_manifest(places, part) for part in _FULL], shuffled),
        needs=tuple(f"cuts-{part}" for part in _FULL),
    )


def _texts(places: Places, training: Sequence[str]) -> Iterator[str]:
    for part in training:
        yield from part_texts(places.manifests / f"librispeech_supervisions_{part}.jsonl.gz")


def _part_manifest(places: Places, part: str) -> Path:
    return places.fbank / f"librispeech_cuts_{part}.jsonl.gz"
