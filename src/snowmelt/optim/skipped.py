"""Which parameters are to blame when a step is skipped? One line of the log for every optimiser.

Invariant: looks at norms only and changes nothing; whether to skip is the optimiser's decision.
"""

import logging
import math
from collections.abc import Sequence

__all__ = ["log_skipped_step"]

_logger = logging.getLogger(__name__)


def log_skipped_step(names: Sequence[str], norms: Sequence[float]) -> None:
    """Warn that a step was not taken, with the first parameter whose gradient is not finite.

    Args:
        names: of the parameters.
        norms: of their gradients, in the same order; at least one is infinite or NaN.
    """
    bad = [name for name, norm in zip(names, norms, strict=True) if not math.isfinite(norm)]
    _logger.warning(
        "step skipped: the gradient of %s is not finite (%d of %d parameters)",
        bad[0],
        len(bad),
        len(names),
    )
