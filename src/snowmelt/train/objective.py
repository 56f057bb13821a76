"""What is minimised? The transducer's two losses, optional auxiliary ones, and their weights.

`transducer_loss` is the mathematics as a function; `TransducerObjective` wraps the model and the
auxiliary heads into one module, which is what data-parallel training wraps.

Invariant: auxiliary heads live beside the model: the model's state dict never knows them.

Source: icefall, egs/librispeech/ASR: {model,train}.py of pruned_transducer_stateless7_streaming and
of lstm_transducer_stateless2. One deliberate difference: at the batch between two steps of the
stepped schedule the original gives the pruned loss its full weight, once.
"""

import math
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.loss.rnnt import (
    do_rnnt_pruning,
    get_rnnt_prune_ranges,
    rnnt_loss_pruned,
    rnnt_loss_pruned_joiner,
    rnnt_loss_smoothed,
)
from snowmelt.models.half_products import bf16_is_faster
from snowmelt.models.joiner import Joiner
from snowmelt.models.transducer import Transducer
from snowmelt.presets.training import TrainConfig

__all__ = [
    "LossScales",
    "StepLosses",
    "TransducerLosses",
    "TransducerObjective",
    "delay_penalty_at",
    "loss_scales",
    "transducer_loss",
]

# The pruned loss starts with a tenth of its weight: until the simple loss has found an alignment,
# the band it is computed on is noise.
_FIRST_PRUNED_SCALE: Final = 0.1

# A node of the lattice through which paths lead with less probability gets no gradient of the
# pruned loss: no more than rounding changes anyway, for a third of the work and more.
_NEGLIGIBLE_OCCUPATION: Final = 1e-6

# What the decoder sees where a token is hidden from it: the zero vector.
_UNKNOWN_TOKEN: Final = -1


class TransducerLosses(NamedTuple):
    """Losses of each utterance in nats, (N,), and the encoder's output they came from."""

    simple_loss: Tensor
    pruned_loss: Tensor
    encoder_out: Tensor  # (N, T, C)
    encoder_out_lens: Tensor  # (N,)


class LossScales(NamedTuple):
    """Weights of the losses in their sum."""

    simple: float
    pruned: float
    ctc: float
    frame: float


class StepLosses(NamedTuple):
    """Sums over the utterances of a batch whose losses are finite, in nats.

    `loss` carries the gradient; the others are detached. `is_finite` (N,) bool tells the
    utterances that took part, `per_utterance` (4, N) the losses of all, in the order of
    `LossScales`.
    """

    loss: Tensor
    simple_loss: Tensor
    pruned_loss: Tensor
    ctc_loss: Tensor
    frame_loss: Tensor
    is_finite: Tensor
    per_utterance: Tensor


def transducer_loss(
    model: Transducer,
    x: Tensor,
    x_lens: Tensor,
    y: Tensor,
    y_lens: Tensor,
    *,
    prune_range: int = 5,
    am_scale: float = 0.0,
    lm_scale: float = 0.25,
    delay_penalty: float = 0.0,
    context_dropout: float = 0.0,
    head: str = "",
    learns_pruned: bool = True,
) -> TransducerLosses:
    """Simple and pruned RNN-T loss of every utterance.

    Args:
        model: the transducer.
        x: (N, T, F) features.
        x_lens: (N,) int64, feature frames of each utterance.
        y: (N, S) int64 token ids without blank, padded with 0.
        y_lens: (N,) int64, tokens of each utterance.
        prune_range: symbols kept per frame in the pruned loss.
        am_scale: share of encoder-only scores in the simple loss.
        lm_scale: share of decoder-only scores in the simple loss.
        delay_penalty: reward for every frame by which a token comes earlier, in both losses.
        context_dropout: share of the tokens that the decoder does not see, so that it cannot learn
            the transcripts of a small corpus by heart.
        head: whose decoder and joiner; "" is the main one.
        learns_pruned: whether the pruned loss carries a gradient.

    Returns:
        Losses per utterance in nats (not divided by lengths) and the encoder output.
    """
    decoder, joiner, simple_am_proj, simple_lm_proj = model.head(head)
    blank_id = decoder.blank_id
    encoder_out, encoder_out_lens = model.encoder(x, x_lens)
    context = F.pad(y, (1, 0), value=blank_id)
    if context_dropout > 0.0:
        is_hidden = torch.rand(context.shape, device=context.device) < context_dropout
        context = context.masked_fill(is_hidden, _UNKNOWN_TOKEN)
    decoder_out = decoder(context, need_pad=True)  # (N, S+1, D)

    boundary = torch.zeros((x.size(0), 4), dtype=torch.int64, device=x.device)
    boundary[:, 2] = y_lens
    boundary[:, 3] = encoder_out_lens

    am = simple_am_proj(encoder_out)
    lm = simple_lm_proj(decoder_out)
    # The lattice sums hundreds of terms: half precision would lose the alignment.
    with torch.autocast(device_type=x.device.type, enabled=False):
        simple_loss, (px_grad, py_grad) = rnnt_loss_smoothed(
            lm=_full_precision(lm),
            am=_full_precision(am),
            symbols=y,
            termination_symbol=blank_id,
            lm_only_scale=lm_scale,
            am_only_scale=am_scale,
            boundary=boundary,
            delay_penalty=delay_penalty,
            reduction="none",
            return_grad=True,
        )
    ranges = get_rnnt_prune_ranges(
        px_grad=px_grad, py_grad=py_grad, boundary=boundary, s_range=prune_range
    )
    with torch.set_grad_enabled(learns_pruned and torch.is_grad_enabled()):
        pruned_loss = _pruned_loss(
            joiner, encoder_out, decoder_out, y, ranges, blank_id, boundary, delay_penalty
        )
    return TransducerLosses(simple_loss, pruned_loss, encoder_out, encoder_out_lens)


def _pruned_loss(
    joiner: Joiner,
    encoder_out: Tensor,
    decoder_out: Tensor,
    y: Tensor,
    ranges: Tensor,
    blank_id: int,
    boundary: Tensor,
    delay_penalty: float,
) -> Tensor:
    """Pruned loss of every utterance, (N,)."""
    am, lm = joiner.encoder_proj(encoder_out), joiner.decoder_proj(decoder_out)
    device_type = encoder_out.device.type
    if any(module._forward_hooks for module in joiner.modules()):
        # Somebody watches what the joiner computes (--inf-check, diagnostics): let it compute.
        logits = joiner(*do_rnnt_pruning(am, lm, ranges), project_input=False)  # (N, T, R, V)
        with torch.autocast(device_type=device_type, enabled=False):
            return rnnt_loss_pruned(
                logits=_full_precision(logits),
                symbols=y,
                ranges=ranges,
                termination_symbol=blank_id,
                boundary=boundary,
                delay_penalty=delay_penalty,
                reduction="none",
            )
    product_dtype = None
    if torch.is_autocast_enabled(device_type):
        product_dtype = torch.get_autocast_dtype(device_type)
        if device_type == "cpu" and not bf16_is_faster():
            product_dtype = None
    weight, bias = joiner.output_parameters()
    return rnnt_loss_pruned_joiner(
        am=_full_precision(am),
        lm=_full_precision(lm),
        weight=weight,
        bias=bias,
        symbols=y,
        ranges=ranges,
        termination_symbol=blank_id,
        boundary=boundary,
        delay_penalty=delay_penalty,
        reduction="none",
        # Who computes in float64 wants all digits.
        negligible=0.0 if weight.dtype == torch.float64 else _NEGLIGIBLE_OCCUPATION,
        product_dtype=product_dtype,
    )


def loss_scales(config: TrainConfig, batch_idx_train: float) -> LossScales:
    """Weights of the losses at batch `batch_idx_train` (from 1; infinity: the final ones)."""
    fade = 1.0
    if config.frame_loss_batches > 0.0:
        fade = max(0.0, 1.0 - batch_idx_train / config.scaled(config.frame_loss_batches))
    ramp = min(1.0, batch_idx_train / config.scaled(config.warm_step))
    simple = 1.0 - ramp * (1.0 - config.simple_loss_scale)
    pruned = _FIRST_PRUNED_SCALE + (1.0 - _FIRST_PRUNED_SCALE) * ramp
    if config.loss_schedule == "stepped":
        warmup = batch_idx_train / config.scaled(config.model_warm_step)
        simple = config.simple_loss_scale
        pruned = 0.0 if warmup < 1.0 else _FIRST_PRUNED_SCALE if warmup < 2.0 else 1.0
    return LossScales(simple, pruned, config.ctc_loss_scale, config.frame_loss_scale * fade)


def delay_penalty_at(config: TrainConfig, batch_idx_train: int) -> float:
    """The delay penalty of batch `batch_idx_train` (from 1): none at first, then a ramp."""
    since_start = batch_idx_train - config.scaled(config.delay_penalty_start)
    if since_start < 0.0:
        return 0.0
    ramp = config.scaled(config.delay_penalty_ramp)
    return config.delay_penalty * (min(1.0, since_start / ramp) if ramp > 0.0 else 1.0)


class TransducerObjective(nn.Module):
    """Model, auxiliary heads and weighed sum of losses as one module.

    Args:
        model: the transducer that is trained.
        config: loss settings.
        encoder_dim: channels of the encoder's output.
        vocab_size: tokens including blank.
    """

    def __init__(
        self, model: Transducer, config: TrainConfig, *, encoder_dim: int, vocab_size: int
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        scales = {"ctc": config.ctc_loss_scale, "frame": config.frame_loss_scale}
        self.heads = nn.ModuleDict(
            {name: nn.Linear(encoder_dim, vocab_size) for name, s in scales.items() if s > 0.0}
        )

    def forward(
        self,
        x: Tensor,
        x_lens: Tensor,
        y: Tensor,
        y_lens: Tensor,
        frame_tokens: Tensor,
        batch_idx_train: int,
        head: str = "",
    ) -> StepLosses:
        """Losses of a batch; in evaluation mode with their final weights and no delay penalty.

        Args:
            x, x_lens, y, y_lens: as in `transducer_loss`.
            frame_tokens: (N, T') int64, the token spoken at each encoder frame, -100 where it is
                not known; used by the frame loss only.
            batch_idx_train: number of the batch, from 1: the place in the schedules of the weights.
            head: whose decoder and joiner; "" is the main one.

        An utterance whose loss is not finite is left out of every sum. A batch without utterances
        has losses and gradients of zero: a process that has nothing to learn from still takes part
        in a data-parallel step.
        """
        if x.size(0) == 0:
            return self._nothing(x)
        config = self.config
        # The schedules of training would make losses of different epochs incomparable.
        scales = loss_scales(config, batch_idx_train if self.training else math.inf)
        losses = transducer_loss(
            self.model,
            x,
            x_lens,
            y,
            y_lens,
            prune_range=config.prune_range,
            am_scale=config.am_scale,
            lm_scale=config.lm_scale,
            delay_penalty=delay_penalty_at(config, batch_idx_train) if self.training else 0.0,
            context_dropout=config.context_dropout if self.training else 0.0,
            head=head,
            learns_pruned=scales.pruned > 0.0,
        )
        ctc_loss = self._ctc_loss(losses, y, y_lens)
        frame_loss = self._frame_loss(losses, frame_tokens)
        per_utterance = torch.stack(
            [losses.simple_loss, losses.pruned_loss, ctc_loss, frame_loss]
        )  # (4, N)
        is_finite = per_utterance.isfinite().all(dim=0)
        sums = per_utterance.masked_fill(~is_finite, 0.0).sum(dim=1)
        total = (sums * sums.new_tensor(scales)).sum()
        simple, pruned, ctc, frame = sums.detach()
        return StepLosses(total, simple, pruned, ctc, frame, is_finite, per_utterance.detach())

    def _nothing(self, x: Tensor) -> StepLosses:
        zero = torch.zeros((), device=x.device)
        # A sum of no numbers: zero, whatever the weights are.
        total = zero + sum(p.flatten()[:0].sum() for p in self.parameters())
        none = torch.zeros((len(LossScales._fields), 0), device=x.device)
        return StepLosses(total, zero, zero, zero, zero, none[0].bool(), none)

    def _ctc_loss(self, losses: TransducerLosses, y: Tensor, y_lens: Tensor) -> Tensor:
        """CTC loss of every utterance, (N,); zero without a head."""
        if "ctc" not in self.heads:
            return torch.zeros_like(losses.simple_loss)
        log_probs = self.heads["ctc"](losses.encoder_out).float().log_softmax(dim=-1)
        return F.ctc_loss(
            log_probs.transpose(0, 1),
            y,
            losses.encoder_out_lens,
            y_lens,
            blank=self.model.decoder.blank_id,
            reduction="none",
            zero_infinity=True,
        )

    def _frame_loss(self, losses: TransducerLosses, frame_tokens: Tensor) -> Tensor:
        """Cross-entropy of each utterance's frames, (N,); zero without a head."""
        if "frame" not in self.heads:
            return torch.zeros_like(losses.simple_loss)
        logits = self.heads["frame"](losses.encoder_out).float()
        return F.cross_entropy(logits.transpose(1, 2), frame_tokens, reduction="none").sum(dim=1)


def _full_precision(scores: Tensor) -> Tensor:
    return scores if scores.dtype == torch.float64 else scores.float()
