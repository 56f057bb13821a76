"""How do ONNX files become a quarter of their size? Weights of matrix products as 8-bit integers.

Dynamic quantisation: weights are rounded once, what they are multiplied with at every call, by the
range it has there. Pointwise convolutions are matrix products in our graphs, so they are included;
the prediction network's embedding too, as in the original.

Invariant: names, shapes and metadata of the files stay as they are.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from snowmelt.core.errors import MissingExtraError
from snowmelt.export.onnx import OnnxFiles

__all__ = ["quantized"]

_OP_TYPES: Final = {"encoder": ["MatMul"], "decoder": ["MatMul", "Gather"], "joiner": ["MatMul"]}


def quantized(files: OnnxFiles) -> OnnxFiles:
    """The 8-bit forms of float32 files.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise MissingExtraError(
            f"quantising needs {error.name}", "pip install 'snowmelt[export]'"
        ) from None

    contents = []
    with tempfile.TemporaryDirectory() as folder:
        for part, content in zip(files._fields, files, strict=True):
            full, small = Path(folder) / f"{part}.onnx", Path(folder) / f"{part}.int8.onnx"
            full.write_bytes(content)
            with _quiet():
                quantize_dynamic(
                    full,
                    small,
                    op_types_to_quantize=_OP_TYPES[part],
                    weight_type=QuantType.QInt8,
                )
            contents.append(small.read_bytes())
    return OnnxFiles(*contents)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without its advice to simplify graphs first, given on the root logger: ours are."""

    def refuse(record: logging.LogRecord) -> bool:
        return "pre-processing" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(refuse)
    try:
        yield
    finally:
        root.removeFilter(refuse)
