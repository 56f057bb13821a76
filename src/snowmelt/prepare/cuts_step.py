"""Which step makes a manifest of cuts, with or without stored features?

Invariant: with features or without, the manifest has the same cuts in the same order.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from lhotse import MonoCut

from snowmelt.prepare.features import write_cuts, write_cuts_with_features
from snowmelt.prepare.pipeline import Step
from snowmelt.prepare.places import Places

__all__ = ["cuts_step"]


def cuts_step(
    places: Places,
    *,
    stage: int,
    name: str,
    cuts: Callable[[], Iterable[MonoCut]],
    manifest: Path,
    folder: Path,
    has_stored_features: bool,
    needs: tuple[str, ...],
    settings: Mapping[str, object],
) -> Step:
    """The step.

    Args:
        places: where things are.
        stage: the stage it belongs to.
        name: of the part.
        cuts: gives the cuts, with paths that lead from here to their sound.
        manifest: the file to write, in `places.fbank`.
        folder: where features go, if any.
        has_stored_features: whether features are computed now.
        needs: names of steps that it reads from.
        settings: what the cuts depend on.
    """

    def make() -> str:
        if has_stored_features:
            counts = write_cuts_with_features(
                cuts,
                manifest,
                folder,
                places.fbank,
                source=places.source,
                title=f"features of {name}",
                workers=places.workers,
            )
        else:
            counts = write_cuts(cuts(), manifest, source=places.source)
        kind = "with features" if has_stored_features else "without features"
        return f"{manifest.name}: {counts.cuts} cuts {kind}, {counts.hours:.3f} h"

    return Step(
        stage=stage,
        name=f"cuts-{name}",
        title=f"{'features' if has_stored_features else 'cuts'} of {name}",
        outputs=(manifest,),
        make=make,
        settings={"stored": has_stored_features, **settings},
        needs=needs,
        scratch=(folder,) if has_stored_features else (),
    )
