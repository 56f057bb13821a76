"""Errors at first and last words."""

from snowmelt.evaluate.edges import EdgeErrors, edge_errors


def test_counts():
    results = [
        ("a", ["ONE", "TWO", "SIX"], ["ONE", "TWO", "SIX"]),
        ("b", ["ONE", "TWO", "SIX"], ["TWO", "SIX"]),
        ("c", ["ONE", "TWO", "SIX"], ["OH", "TWO"]),
        ("d", ["ONE", "TWO", "SIX"], ["OH", "OH", "ONE", "TWO", "SIX", "ONE"]),
        ("e", ["ONE", "TWO", "SIX"], ["ONE", "TWO", "FIX"]),
        ("f", ["ONE"], []),
        ("g", [], ["OH"]),
    ]
    errors = edge_errors(results)
    assert errors == EdgeErrors(
        num_utterances=6,
        first_lost=2,
        first_wrong=1,
        last_lost=2,
        last_wrong=1,
        inserted_before=2,
        inserted_after=1,
    )
    assert str(errors) == (
        "first words: 2 lost, 1 wrong, 2 words before them; last words: 2 lost, 1 wrong, "
        "1 words after them; of 6 utterances"
    )
    assert edge_errors([]) == EdgeErrors()
