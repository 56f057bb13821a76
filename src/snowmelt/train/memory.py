"""Will the batches of a run fit into memory? Estimated, and tried, before training begins.

    shapes of all batches -> the worst of them -> an estimate in bytes -> a trial without a step

Invariant: nothing here leaves a trace: weights, gradients, random numbers and the regularisers'
state are afterwards what they were, so a run is the same with and without it.
"""

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snowmelt.core.errors import TrainingError
from snowmelt.data.batch import Batch
from snowmelt.presets.frames import FEATURE_FRAME_S, num_encoder_frames
from snowmelt.train.forward_state import undisturbed
from snowmelt.train.free_memory import free_memory
from snowmelt.train.guard import without_bad_features
from snowmelt.train.objective import StepLosses

__all__ = [
    "BatchShape",
    "MemoryEstimate",
    "batch_shapes",
    "dry_run",
    "estimate_memory",
    "pessimistic_batches",
]

_logger = logging.getLogger(__name__)

_GIB: Final = 2**30

# Tensors of a parameter's size that ScaledAdam and Eve keep for it.
_OPTIMISER_COPIES: Final = 2

# What is alive at the worst moment over what autograd has saved: gradients on their way, what the
# allocator wastes, numbers kept beside tensors. Measured on a CPU at 1.1 to 1.4.
_ALIVE_PER_SAVED: Final = 1.25
# Training draws at random which layers run and how far attention sees: the worst of so many draws.
_NUM_DRAWS: Final = 2
# Needing so much more than is free is beyond the error of the estimate.
_BEYOND_DOUBT: Final = 1.5

# The encoders make nothing of less.
_MIN_FRAMES: Final = 9

# How torch says it for devices that have no class of error for it.
_OUT_OF_MEMORY: Final = ("out of memory", "not enough memory", "can't allocate memory")


class BatchShape(NamedTuple):
    """Sizes of the tensors of a batch."""

    num_utterances: int
    num_frames: int  # feature frames of the longest
    num_tokens: int  # tokens of the one that has most

    @property
    def seconds(self) -> float:
        """Sound with its padding."""
        return self.num_utterances * self.num_frames * FEATURE_FRAME_S


_CRITERIA: Final[dict[str, Callable[[BatchShape], float]]] = {
    "longest utterance": lambda shape: shape.num_frames,
    "most utterances": lambda shape: shape.num_utterances,
    "most seconds": lambda shape: shape.seconds,
    "most tokens": lambda shape: shape.num_utterances * shape.num_tokens,
    "most frames x tokens": lambda shape: (
        shape.num_utterances * shape.num_frames * shape.num_tokens
    ),
}


def batch_shapes(
    batches: Sequence[Sequence[int]], durations: Sequence[float], num_tokens: Sequence[int]
) -> list[BatchShape]:
    """Shapes that batches will have.

    Args:
        batches: numbers of the utterances of each.
        durations: seconds of each utterance, with the silence that may be appended to it.
        num_tokens: tokens of each utterance.
    """
    return [
        BatchShape(
            len(batch),
            max(_MIN_FRAMES, round(max(durations[n] for n in batch) / FEATURE_FRAME_S)),
            max(num_tokens[n] for n in batch),
        )
        for batch in batches
    ]


def pessimistic_batches(shapes: Sequence[BatchShape]) -> list[tuple[str, int]]:
    """The batches that will need most memory, by several criteria, each of them once.

    Returns:
        (criteria that it is the worst by, its number), the longest utterance's first.
    """
    found: dict[int, list[str]] = {}
    for criterion, value in _CRITERIA.items():
        worst = max(range(len(shapes)), key=lambda n: (value(shapes[n]), shapes[n].seconds))
        found.setdefault(worst, []).append(criterion)
    return [(", ".join(criteria), n) for n, criteria in found.items()]


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a run needs.

    On a CPU, with Zipformers of 4 and 11 million parameters, an LSTM of 9 million, and batches of
    20 to 60 s, the peak was 0.8 to 1.15 times what is estimated; the batch's part is uncertain.

    Attributes:
        model: weights and their running mean; they are there already.
        learning: gradients, and the optimiser's state as far as it is not there yet.
        batch: the largest batch, with all that its gradient needs.
        shape: of that batch.
        free: what is free now; None: nobody knows.
    """

    model: int
    learning: int
    batch: int
    shape: BatchShape
    free: int | None

    def text(self) -> str:
        """One line for the log."""
        free = "" if self.free is None else f"; {self.free / _GIB:.1f} GiB are free"
        return (
            f"memory: {(self.model + self.learning) / _GIB:.1f} GiB for model and optimiser, about "
            f"{self.batch / _GIB:.1f} GiB for a batch of {self.shape.seconds:.0f} s{free}"
        )

    def report(self) -> None:
        """Log the estimate; a warning where it is more than is free.

        Raises:
            TrainingError: far more than is free.
        """
        _logger.info("%s", self.text())
        needed = self.learning + self.batch
        if self.free is None or needed <= self.free:
            return
        error = TrainingError(
            f"training needs about {needed / _GIB:.1f} GiB more memory, "
            f"{self.free / _GIB:.1f} GiB are free",
            self._advice(self.free),
        )
        if needed > _BEYOND_DOUBT * self.free:
            raise error
        _logger.warning("%s", error)

    def _advice(self, free: int) -> str:
        room = (free - self.learning) / self.batch
        if room <= 0.0:
            return "train a smaller model"
        return _shorter_batches(self.shape, room)


def estimate_memory(
    forward: Callable[[Batch], StepLosses],
    objective: nn.Module,
    optimizer: Optimizer,
    shapes: Sequence[BatchShape],
    *,
    model_avg: nn.Module | None = None,
    feature_dim: int = 80,
    has_frame_tokens: bool = False,
    num_processes: int = 1,
) -> MemoryEstimate:
    """Estimate what training on batches of some shapes needs.

    What autograd keeps grows in proportion to the number of utterances, but not to their length
    (attention sees whole utterances) or their tokens. So one and two made-up utterances of full
    length are computed forward, for each of the worst shapes, and what is kept is counted.

    Args:
        forward: losses of a batch, as in training.
        objective: the module behind it, not its data-parallel wrapper, in training mode.
        optimizer: over its parameters.
        shapes: of all batches, at least one.
        model_avg: the running mean of the model, if this process keeps one.
        feature_dim: F.
        has_frame_tokens: whether batches have them.
        num_processes: processes that share the memory of this device.
    """
    params = [p for p in objective.parameters() if p.requires_grad]
    device = params[0].device

    def saved(shape: BatchShape, num_utterances: int, draw: int) -> int:
        num_labels = num_encoder_frames(shape.num_frames) if has_frame_tokens else 0
        batch = _made_up(shape._replace(num_utterances=num_utterances), feature_dim, num_labels)
        random.seed(draw)
        torch.manual_seed(draw)
        return _saved_bytes(lambda: forward(batch), params)

    def batch_bytes(shape: BatchShape) -> int:
        one, draw = max((saved(shape, 1, draw), draw) for draw in range(_NUM_DRAWS))
        each = saved(shape, 2, draw) - one
        return round(_ALIVE_PER_SAVED * (one + (shape.num_utterances - 1) * each))

    with undisturbed(objective):
        sizes = {
            shape: batch_bytes(shape)
            for shape in {shapes[n] for _, n in pessimistic_batches(shapes)}
        }
    largest = max(sizes, key=lambda shape: sizes[shape])
    free = free_memory(device)
    return MemoryEstimate(
        model=_module_bytes(objective) + (0 if model_avg is None else _module_bytes(model_avg)),
        learning=sum(p.nbytes for p in params) + _missing_state_bytes(optimizer),
        batch=sizes[largest],
        shape=largest,
        free=None if free is None else free // num_processes,
    )


def dry_run(
    forward: Callable[[Batch], StepLosses],
    objective: nn.Module,
    optimizer: Optimizer,
    batches: Iterable[tuple[str, Batch]],
) -> None:
    """Compute forward and backward on some batches, without a step, to see whether they fit.

    Args:
        forward: losses of a batch, as in training.
        objective: the module behind it, not its data-parallel wrapper, in training mode.
        optimizer: its state is not there before the first step; room is kept for it.
        batches: (what each is the worst by, the batch).

    Raises:
        TrainingError: one does not fit.
    """
    params = [p for p in objective.parameters() if p.requires_grad]
    for criterion, batch in batches:
        try:
            with undisturbed(objective):
                kept_free = torch.empty(
                    _missing_state_bytes(optimizer), dtype=torch.uint8, device=params[0].device
                )
                loss = forward(without_bad_features(batch)[0]).loss
                # Not `backward`: a data-parallel wrapper would take the gradients for a step's.
                gradients = torch.autograd.grad(loss, params, allow_unused=True)
                del loss, gradients, kept_free
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            num_utterances, num_frames, _ = batch.features.shape
            shape = BatchShape(num_utterances, num_frames, batch.token_ids.size(1))
            raise TrainingError(
                f"out of memory in a trial of the batch with the {criterion}: {shape.seconds:.0f} "
                f"s with padding, {_utterances(shape)}",
                _shorter_batches(shape, 0.5),
            ) from None


def _made_up(shape: BatchShape, feature_dim: int, num_labels: int) -> Batch:
    """A batch of noise of that shape, whose tokens are all 1."""
    n, num_frames, num_tokens = shape
    return Batch(
        features=torch.randn(n, num_frames, feature_dim),
        feature_lens=torch.full((n,), num_frames),
        token_ids=torch.ones(n, max(1, num_tokens), dtype=torch.int64),
        token_lens=torch.full((n,), max(1, num_tokens)),
        cut_ids=tuple(f"noise-{i}" for i in range(n)),
        frame_tokens=torch.zeros(n, num_labels, dtype=torch.int64),
    )


def _saved_bytes(forward: Callable[[], object], params: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps of a forward for its backward, parameters aside."""
    ours = {p.untyped_storage().data_ptr() for p in params}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Views share their storage: it counts once.
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    # Until here: what is freed earlier could give its address to another.
    del result
    return sum(saved.values())


def _module_bytes(module: nn.Module) -> int:
    tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
    return sum(tensor.nbytes for tensor in tensors)


def _missing_state_bytes(optimizer: Optimizer) -> int:
    """What the optimiser's state will take when its first step makes it."""
    if optimizer.state:
        return 0
    params: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    return _OPTIMISER_COPIES * sum(p.nbytes for p in params)


def _shorter_batches(shape: BatchShape, share: float) -> str:
    """Advice that leaves `share` of a batch."""
    seconds = max(1.0, shape.seconds * share)
    if shape.num_utterances == 1:
        return f"leave out long utterances, for instance with --max-utterance-s {seconds:.3g}"
    return f"lower --max-duration, for instance to {seconds:.3g}"


def _utterances(shape: BatchShape) -> str:
    longest = shape.num_frames * FEATURE_FRAME_S
    if shape.num_utterances == 1:
        return f"one utterance of {longest:.3g} s"
    return f"{shape.num_utterances} utterances of up to {longest:.3g} s"


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error) for words in _OUT_OF_MEMORY
    )
