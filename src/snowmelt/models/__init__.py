"""What turns features into encoder frames, and frames and tokens into logits? The networks.

``build.build_transducer`` makes a whole model from a preset; ``zipformer`` and ``lstm`` hold the
encoders, ``scaled_layers`` the LSTM's layers with scales, ``regularisers`` what acts on gradients
while training.

Invariant: modules are functions of their arguments and weights; no loss, no files, no text here.
"""
