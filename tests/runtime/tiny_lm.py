"""Language models small enough for a test, as `snowmelt train-lm` leaves them."""

from pathlib import Path

import torch

from snowmelt.checkpoint.experiment import save_experiment
from snowmelt.checkpoint.files import save_checkpoint
from snowmelt.checkpoint.lm_experiment import LmExperimentConfig
from snowmelt.models.lm.build import build_lm
from snowmelt.models.lm.model import TokenLm
from snowmelt.presets.language_models import LmConfig, RnnLmConfig, TransformerLmConfig
from snowmelt.text.tokenizer import Tokenizer, vocabulary_hash

TINY_LMS: dict[str, LmConfig] = {
    "rnn": RnnLmConfig(embedding_dim=6, hidden_dim=8, num_layers=2),
    "transformer": TransformerLmConfig(
        encoder_dim=8, nhead=2, dim_feedforward=16, num_layers=2, context_len=4
    ),
}


def tiny_lm(lm_type: str, vocab_size: int, seed: int = 0) -> TokenLm:
    """Far from uniform, so that it changes results."""
    torch.manual_seed(seed)
    model = build_lm(TINY_LMS[lm_type], vocab_size)
    with torch.no_grad():
        model.output.bias.normal_(0.0, 2.0)
        for parameter in model.core.parameters():
            parameter.mul_(2.0)
    return model.eval()


def save_tiny_lm(exp_dir: Path, lm_type: str, tokenizer: Tokenizer, num_epochs: int = 2) -> None:
    """Epochs of other weights each; the first has the best loss."""
    config = LmExperimentConfig(model=TINY_LMS[lm_type], vocabulary_hash=vocabulary_hash(tokenizer))
    save_experiment(exp_dir, config, tokenizer)
    for epoch in range(1, num_epochs + 1):
        weights = tiny_lm(lm_type, tokenizer.vocab_size, seed=epoch).state_dict()
        save_checkpoint(exp_dir / f"epoch-{epoch}.pt", {"model": weights})
        if epoch == 1:
            save_checkpoint(exp_dir / "best-valid-loss.pt", {"model": weights})
