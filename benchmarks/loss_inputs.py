"""Which tensors does the loss of a trained model get? Writes them for `loss.py`.

    python -m benchmarks.loss_inputs EXP_DIR DATA_DIR OUT.npz [--num-utterances 60]

The outputs of the trained encoder and decoder on utterances of a prepared corpus, in evaluation
mode, the transcripts, and the weights of the projections and the joiner.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from snowmelt.checkpoint.average import find_checkpoints, load_average
from snowmelt.checkpoint.experiment import load_experiment, numbered_checkpoints
from snowmelt.data.batch import AsrDataset
from snowmelt.data.corpora.folder import load_split
from snowmelt.models.build import build_transducer


def main() -> None:
    """Compute and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exp_dir", type=Path)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--num-utterances", type=int, default=60)
    parser.add_argument("--split", default="train")
    args = parser.parse_args()
    config, tokenizer = load_experiment(args.exp_dir)
    model = build_transducer(config.model, tokenizer.vocab_size)
    epoch = max(numbered_checkpoints(args.exp_dir, "epoch"))
    model.load_state_dict(load_average(find_checkpoints(args.exp_dir, epoch=epoch)))
    model.eval()
    cuts = list(load_split(args.data_dir, args.split))
    # Every so many: neighbours have one speaker.
    cuts = cuts[:: max(1, len(cuts) // args.num_utterances)][: args.num_utterances]
    batch = AsrDataset(cuts, tokenizer, fbank_config=config.features).get(range(len(cuts)), epoch=1)
    with torch.no_grad():
        encoder_out, encoder_out_lens = model.encoder(batch.features, batch.feature_lens)
        decoder_out = model.decoder(F.pad(batch.token_ids, (1, 0)), need_pad=True)
    boundary = torch.zeros(len(cuts), 4, dtype=torch.int64)
    boundary[:, 2], boundary[:, 3] = batch.token_lens, encoder_out_lens
    layers = {
        "simple_am": model.simple_am_proj,
        "simple_lm": model.simple_lm_proj,
        "encoder_proj": model.joiner.encoder_proj,
        "decoder_proj": model.joiner.decoder_proj,
        "output_linear": model.joiner.output_linear,
    }
    arrays = {
        f"{name}.{kind}": parameter.detach().numpy()
        for name, layer in layers.items()
        for kind, parameter in layer.named_parameters()
    }
    np.savez(
        args.out,
        encoder_out=encoder_out.numpy(),
        decoder_out=decoder_out.numpy(),
        symbols=batch.token_ids.numpy(),
        boundary=boundary.numpy(),
        **arrays,
    )


if __name__ == "__main__":
    main()
