"""What does training add to the encoders besides its loss?

Identities that shape the gradient (ActivationBalancer, Whiten, MaxEig, penalize_abs_values_gt, and
ThresholdBalancer and filter_gradients of the LSTM), values that are clamped only now and then,
scaled initialisation, and norm and activations.

Invariant: in evaluation mode every class here is its plain formula, scriptable and traceable, and
draws no random number. Coin flips come from Python's global ``random``, and nothing is computed
when a flip says no; masks come from torch's generator.

Source: icefall, egs/librispeech/ASR: pruned_transducer_stateless7/scaling.py, for the LSTM
pruned_transducer_stateless2/scaling.py.
"""

from snowmelt.models.regularisers.activation import (
    DoubleSwish,
    DoubleSwishDropout,
    Dropout,
    double_swish,
    softmax,
)
from snowmelt.models.regularisers.balancer import ActivationBalancer
from snowmelt.models.regularisers.gradient_filter import filter_gradients
from snowmelt.models.regularisers.limits import (
    clamp_sometimes,
    penalize_abs_values_gt,
    random_clamp,
)
from snowmelt.models.regularisers.max_eig import MaxEig
from snowmelt.models.regularisers.norm import BasicNorm
from snowmelt.models.regularisers.scaled import scaled_conv1d, scaled_linear
from snowmelt.models.regularisers.schedule import (
    load_regulariser_state,
    regulariser_state,
    set_batch_count,
    set_schedule_scale,
)
from snowmelt.models.regularisers.threshold_balancer import ThresholdBalancer
from snowmelt.models.regularisers.whiten import Whiten, whitening_metric

__all__ = [
    "ActivationBalancer",
    "BasicNorm",
    "DoubleSwish",
    "DoubleSwishDropout",
    "Dropout",
    "MaxEig",
    "ThresholdBalancer",
    "Whiten",
    "clamp_sometimes",
    "double_swish",
    "filter_gradients",
    "load_regulariser_state",
    "penalize_abs_values_gt",
    "random_clamp",
    "regulariser_state",
    "scaled_conv1d",
    "scaled_linear",
    "set_batch_count",
    "set_schedule_scale",
    "softmax",
    "whitening_metric",
]
