"""An experiment with a small model of random weights, and sound for it.

What it says means nothing; that two ways of asking give the same answer does.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from snowmelt.checkpoint.experiment import ExperimentConfig, save_experiment
from snowmelt.checkpoint.files import save_checkpoint
from snowmelt.models.build import build_transducer
from snowmelt.presets.data import DataConfig
from snowmelt.presets.models import LstmConfig, ModelConfig, ZipformerConfig
from snowmelt.search.scorer import FloatArray
from snowmelt.text.tokenizer import Tokenizer, build_chars, vocabulary_hash

TINY = ZipformerConfig(
    num_encoder_layers=(1, 1, 1, 1, 1),
    feedforward_dims=(32, 32, 32, 32, 32),
    nhead=(2, 2, 2, 2, 2),
    encoder_dims=(24, 24, 24, 24, 24),
    attention_dims=(16, 16, 16, 16, 16),
    encoder_unmasked_dims=(16, 16, 16, 16, 16),
    cnn_module_kernels=(7, 7, 7, 7, 7),
    decoder_dim=16,
    joiner_dim=16,
)

TINY_LSTM = LstmConfig(
    num_encoder_layers=2,
    encoder_dim=16,
    rnn_hidden_size=24,
    dim_feedforward=32,
    decoder_dim=16,
    joiner_dim=16,
)

TINY_MODELS: dict[str, ModelConfig] = {"zipformer": TINY, "lstm": TINY_LSTM}


def tiny_tokenizer() -> Tokenizer:
    return build_chars(["ABCDEFGHIJKLMNOPQRSTUVWXYZ"])


def tiny_weights(seed: int = 1, model: ModelConfig = TINY, head: str = "") -> dict[str, Tensor]:
    """Weights whose joiners are eager to emit; with a `head` for another corpus too."""
    torch.manual_seed(seed)
    heads = (head,) if head else ()
    transducer = build_transducer(model, tiny_tokenizer().vocab_size, extra_heads=heads)
    for decoder, joiner, *_ in map(transducer.head, ("", *heads)):
        for parameter in (*joiner.parameters(), *decoder.parameters()):
            torch.nn.init.normal_(parameter, std=0.5)
    return transducer.state_dict()


def make_experiment(
    exp_dir: Path,
    num_epochs: int = 3,
    corpus: str = "digits",
    *,
    model: ModelConfig = TINY,
    head: str = "",
) -> Path:
    """epoch-1.pt to epoch-N.pt of different weights with running means, config.yaml, lang/."""
    tokenizer = tiny_tokenizer()
    config = ExperimentConfig(
        model=model,
        data=DataConfig(corpus=corpus, tokenizer="chars"),
        vocabulary_hash=vocabulary_hash(tokenizer),
    )
    save_experiment(exp_dir, config, tokenizer)
    for epoch in range(1, num_epochs + 1):
        save_checkpoint(
            exp_dir / f"epoch-{epoch}.pt",
            {
                "model": tiny_weights(epoch, model, head),
                "model_avg": tiny_weights(100 + epoch, model, head),
                "batch_idx_train": 10 * epoch,
                "average_period": 5,
            },
        )
    return exp_dir


def noise(seconds: float, seed: int = 0, rate: int = 16000) -> FloatArray:
    """Noise that swells and fades, of a colour of its own."""
    rng = np.random.default_rng(seed)
    swell = np.sin(np.linspace(0, 7 * seconds, round(rate * seconds))) ** 2
    colour = np.ones(rng.integers(1, 9))
    return (swell * np.convolve(rng.normal(0, 0.1, len(swell)), colour, "same")).astype(np.float32)
