"""Does the log name the parameter that spoilt a step?"""

import logging
import math

from snowmelt.optim.skipped import log_skipped_step


def test_names_the_first_bad_parameter_and_counts_all(caplog):
    with caplog.at_level(logging.WARNING):
        log_skipped_step(["a", "b", "c"], [1.0, math.nan, math.inf])
    assert caplog.messages == [
        "step skipped: the gradient of b is not finite (2 of 3 parameters)",
    ]
