"""What turns features into encoder frames, and frames and tokens into logits? The networks.

``build.build_transducer`` makes a whole model from a preset; ``zipformer`` holds the encoder,
``regularisers`` what acts on gradients while training.

Invariant: modules are functions of their arguments and weights; no loss, no files, no text here.
"""
