"""Sums of losses and their log lines."""

from snowmelt.train.metrics import LossTotals, format_totals


def test_sums_and_decay() -> None:
    one = LossTotals(loss=2.0, simple_loss=4.0, pruned_loss=1.0, frames=10.0, utterances=1.0)
    total = one.decayed(200) + one
    assert total.loss == 2.0 * (1 - 1 / 200) + 2.0
    assert total.frames == 10.0 * (1 - 1 / 200) + 10.0


def test_line_of_the_log() -> None:
    totals = LossTotals(
        loss=50.0,
        simple_loss=100.0,
        pruned_loss=25.0,
        frames=100.0,
        utterances=4.0,
        feature_frames=404.0,
        padding=0.5,
    )
    assert format_totals(totals) == (
        "loss=0.5, simple_loss=1, pruned_loss=0.25, over 100.00 frames. "
        "utt_duration=101 frames, utt_pad_proportion=0.125, over 4.00 utterances. "
    )


def test_no_frames_is_no_division_by_zero() -> None:
    assert LossTotals().rates()["loss"] == 0.0
