"""What leaves the house: a trained model as a state dict, as TorchScript, as ONNX files.

Every form is made from one module that only recognises (`inference.py`), and every file is compared
with the eager model before it gets its name.

Invariant: exporting changes no model that is passed in.
"""
