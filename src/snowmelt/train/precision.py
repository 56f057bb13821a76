"""In which precision is a batch computed, and what does that ask of the step after it?

    float32    nothing special; also what --use-fp16 means where there is no CUDA
    bfloat16   autocast; has float32's range, so gradients need no scaling
    float16    autocast on CUDA; the loss is multiplied by a scale, or small gradients would be lost

The float16 scale halves whenever a gradient overflows and doubles after 2000 steps without. The
recipe of the Zipformer begins with a scale of 1 and also lets it grow by a rule of its own.

Invariant: in every precision a step whose gradients are not finite is skipped whole, and counted
in the optimiser's `num_skipped_steps`.

Source: icefall, egs/librispeech/ASR/pruned_transducer_stateless7_streaming/train.py (the rule for
the scale; there it goes by the number of the batch in its epoch).
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from snowmelt.core.errors import CheckpointError, ConfigError
from snowmelt.optim.eve import Eve
from snowmelt.optim.scaled_adam import ScaledAdam

__all__ = ["Precision"]

_logger = logging.getLogger(__name__)

# Only here does float16 pay, and only here have the recipes used it.
_FP16_DEVICES: Final = ("cuda",)

# Batches between two looks at the scale.
_SCALE_PERIOD: Final = 100
# Below this it is doubled at every look, below the second at every fourth.
_GROW_ALWAYS_BELOW: Final = 1.0
_GROW_SLOWLY_BELOW: Final = 8.0
# A scale so small means that gradients overflow again and again: training is about to diverge.
_WARN_BELOW: Final = 0.01
_STOP_BELOW: Final = 1e-5


class Precision:
    """Autocast, loss scaling and the optimiser's step of one run.

    Args:
        device: where the model is.
        use_fp16: float16 with a scaled loss, on CUDA; elsewhere a warning is logged and training
            is in float32.
        use_bf16: bfloat16, on any device.
        init_scale: scale of the loss at the start, for float16; torch's default as in the LSTM
            recipe, 1 in that of the Zipformer.
        has_manual_growth: whether a scale below 8 is doubled now and then, as in the recipe of
            the Zipformer.

    Raises:
        ConfigError: both precisions are asked for.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        use_fp16: bool,
        use_bf16: bool,
        init_scale: float = 65536.0,
        has_manual_growth: bool = False,
    ) -> None:
        if use_fp16 and use_bf16:
            raise ConfigError(
                "use_fp16 and use_bf16 are both on",
                "choose one: --use-bf16 needs no loss scaling, --use-fp16 runs on older GPUs too",
            )
        self._device_type = device.type
        self._has_manual_growth = has_manual_growth
        self._scaler: torch.amp.GradScaler | None = None
        self._dtype = torch.bfloat16 if use_bf16 else torch.float32
        if use_fp16 and device.type in _FP16_DEVICES:
            self._dtype = torch.float16
            self._scaler = torch.amp.GradScaler(device.type, init_scale=init_scale)
        elif use_fp16:
            _logger.warning(
                "--use-fp16 is for CUDA, on this device (%s) training is in float32; "
                "--use-bf16 works here",
                device.type,
            )

    @property
    def scale(self) -> float | None:
        """Present scale of the loss; None where it is not scaled."""
        return None if self._scaler is None else self._scaler.get_scale()

    def autocast(self) -> torch.autocast:
        """A context for the forward pass and the loss."""
        # The type is not looked at where autocast is off, but it must be one that could be.
        is_on = self._dtype != torch.float32
        dtype = self._dtype if is_on else torch.bfloat16
        return torch.autocast(self._device_type, dtype=dtype, enabled=is_on)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar loss, scaled where there is a scale."""
        scaled = loss if self._scaler is None else self._scaler.scale(loss)
        scaled.backward()

    def step(self, optimizer: ScaledAdam | Eve, batch_idx_train: int) -> bool:
        """Let the optimiser step after `backward`; the scale follows.

        Args:
            optimizer: over the parameters whose gradients `backward` has set.
            batch_idx_train: number of the batch from the start of training, from 1: the scale is
                looked at after every hundredth.

        Returns:
            False if the step was skipped because a gradient is infinite or NaN.

        Raises:
            ConfigError: the scale has become so small that training cannot go on.
        """
        num_skipped = optimizer.num_skipped_steps
        if self._scaler is None:
            optimizer.step()
        else:
            self._scaled_step(self._scaler, optimizer)
            if batch_idx_train % _SCALE_PERIOD == 0:
                self._look_at_scale(self._scaler, batch_idx_train)
        return optimizer.num_skipped_steps == num_skipped

    def state_dict(self) -> dict[str, Any] | None:
        """The scaler's state in torch's layout, plain numbers; None where there is no scaler."""
        return None if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any] | None) -> None:
        """Take over the scale of a saved run.

        A run that goes on in another precision is allowed: without a saved scale the initial one
        stays (icefall saves an empty dict), without a scaler the saved one is not needed.

        Raises:
            CheckpointError: the state is not one of a gradient scaler.
        """
        if self._scaler is None or not state_dict:
            return
        try:
            self._scaler.load_state_dict(dict(state_dict))
        except KeyError as error:
            raise CheckpointError(
                f"the saved state of the gradient scaler has no {error}",
                "the checkpoint is damaged, or of another program: resume from an older one",
            ) from None

    def _scaled_step(self, scaler: torch.amp.GradScaler, optimizer: ScaledAdam | Eve) -> None:
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        # The scale falls exactly where the scaler has found an overflow; then the optimiser was
        # not asked and could not count.
        new_scale = scaler.get_scale()
        if new_scale < scale:
            optimizer.num_skipped_steps += 1
            _logger.info("step skipped: gradients overflow, the loss scale is now %.3g", new_scale)

    def _look_at_scale(self, scaler: torch.amp.GradScaler, batch_idx_train: int) -> None:
        scale = scaler.get_scale()
        if scale < _STOP_BELOW:
            raise ConfigError(
                f"the loss scale has fallen to {scale:.3g}: the gradients overflow in float16",
                "lower the learning rate (--base-lr of the Zipformer: by steps of 0.005, down to "
                "0.02), or train with --use-bf16",
            )
        if scale < _WARN_BELOW:
            _logger.warning("the loss scale is small: %.3g", scale)
        is_due = batch_idx_train % (4 * _SCALE_PERIOD) == 0
        if self._has_manual_growth and (
            scale < _GROW_ALWAYS_BELOW or (scale < _GROW_SLOWLY_BELOW and is_due)
        ):
            scaler.update(2.0 * scale)
