"""How do ONNX files become a quarter of their size? Weights of matrix products as 8-bit integers.

Dynamic quantisation: weights are rounded once, with a scale for each output channel; what they are
multiplied with at every call, by the range it has there. Pointwise convolutions are matrix products
in our graphs, so they are included; the prediction network's tables too, as in the original.
Convolutions over time or frequency and products with constants that are no layer's weights (the
positions of the attention) stay as they are: they would lose accuracy and gain nothing.

Invariant: names, shapes and metadata of the files stay as they are; a layer that is kept is not
touched.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from snowmelt.core.errors import MissingExtraError
from snowmelt.export.onnx import OnnxFiles

__all__ = ["Layer", "layers_of", "quantized"]

# Symmetric: as far below zero as above.
_LARGEST: Final = 127

_PRODUCTS: Final = ("MatMul", "Gemm")


class Layer(NamedTuple):
    """Weights that can be rounded.

    Attributes:
        part: "encoder", "decoder" or "joiner".
        name: its place in the model, as in "encoder/encoders.0/layers.0/feed_forward1/in_proj".
        weight: the constant that holds the weights.
        nodes: places, in the graph's list, of the nodes that use them; an LSTM's several.
        num_weights: how many there are.
    """

    part: str
    name: str
    weight: str
    nodes: tuple[int, ...]
    num_weights: int


def layers_of(files: OnnxFiles) -> list[Layer]:
    """What `quantized` rounds, in the order of the graphs.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    return [
        layer
        for part, content in zip(files._fields, files, strict=True)
        for layer in _layers(part, _onnx().load_from_string(content).graph)
    ]


def quantized(files: OnnxFiles, kept: Collection[str] = ()) -> OnnxFiles:
    """The 8-bit forms of float32 files.

    Args:
        files: float32, from `export_onnx`.
        kept: names of layers that stay float32.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    contents = []
    for part, content in zip(files._fields, files, strict=True):
        model = _onnx().load_from_string(content)
        layers = [layer for layer in _layers(part, model.graph) if layer.name not in kept]
        contents.append(_rounded(model, layers) if layers else content)
    return OnnxFiles(*contents)


def _layers(part: str, graph: Any) -> list[Layer]:
    sizes = {w.name: int(np.prod(w.dims)) for w in graph.initializer if len(w.dims) == 2}
    users: dict[str, list[int]] = {}
    for i, node in enumerate(graph.node):
        if node.op_type in _PRODUCTS and node.input[1] in sizes:
            users.setdefault(node.input[1], []).append(i)
        elif node.op_type == "Gather" and part == "decoder" and node.input[0] in sizes:
            users.setdefault(node.input[0], []).append(i)
    # The node's own kind says nothing, but for two products in one module; a table has a name.
    first = [
        weight if graph.node[nodes[0]].op_type == "Gather" else graph.node[nodes[0]].name.strip("/")
        for weight, nodes in users.items()
    ]
    modules = [name.rpartition("/")[0] for name in first]
    times = Counter(modules)
    return [
        Layer(
            part,
            f"{part}/{module if module and times[module] == 1 else name}",
            weight,
            tuple(nodes),
            sizes[weight],
        )
        for (weight, nodes), name, module in zip(users.items(), first, modules, strict=True)
    ]


def _rounded(model: Any, layers: Sequence[Layer]) -> bytes:
    graph = model.graph
    rewriting = _Rewriting(graph)
    wanted = {i for layer in layers for i in layer.nodes}
    for i, node in enumerate(list(graph.node)):
        rewriting.add(node, is_rounded=i in wanted)
    del graph.node[:]
    graph.node.extend(rewriting.nodes)
    used = {name for node in graph.node for name in node.input}
    constants = [*(w for w in graph.initializer if w.name in used), *rewriting.constants.values()]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    _onnx().checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


class _Rewriting:
    """The nodes and constants of a graph in which some nodes are replaced.

    Args:
        graph: the float32 graph.
    """

    def __init__(self, graph: Any) -> None:
        self._weights = {w.name: w for w in graph.initializer}
        self._inputs: dict[str, tuple[str, str, str]] = {}  # what is rounded already
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def add(self, node: Any, *, is_rounded: bool) -> None:
        """The node itself, or those that take its place."""
        if not is_rounded:
            self.nodes.append(node)
        elif node.op_type == "Gather":
            self._table(node)
        else:
            self._product(node)

    def _product(self, node: Any) -> None:
        x, weight = node.input[0], node.input[1]
        options = {a.name: a.i for a in node.attribute if a.name.startswith("trans")}
        assert not options.get("transA"), node.name
        values = self._values(weight)
        values = values.T if options.get("transB") else values  # (inputs, outputs)
        scale = np.abs(values).max(axis=0) / _LARGEST
        integers, scales = self._constants(weight, values, np.where(scale > 0, scale, 1.0))
        x_int, x_scale, x_zero = self._input(x)
        base, out = node.output[0], node.output[0]
        bias = node.input[2] if len(node.input) > 2 else None
        self._node("MatMulInteger", [x_int, integers, x_zero], f"{base}_sum")
        self._node("Cast", [f"{base}_sum"], f"{base}_float", to=_onnx().TensorProto.FLOAT)
        self._node("Mul", [x_scale, scales], f"{base}_scale")
        scaled = out if bias is None else f"{base}_scaled"
        self._node("Mul", [f"{base}_float", f"{base}_scale"], scaled)
        if bias is not None:
            self._node("Add", [scaled, bias], out)

    def _table(self, node: Any) -> None:
        values = self._values(node.input[0])
        scale = np.asarray(np.abs(values).max() / _LARGEST)  # one for all rows
        integers, scales = self._constants(node.input[0], values, scale)
        out = node.output[0]
        self._node("Gather", [integers, node.input[1]], f"{out}_int8", axis=0)
        self._node("DequantizeLinear", [f"{out}_int8", scales], out)

    def _input(self, x: str) -> tuple[str, str, str]:
        """Names of an input as integers, their scale and their zero; once for all that use it."""
        if x not in self._inputs:
            names = f"{x}_int8", f"{x}_int8_scale", f"{x}_int8_zero"
            self._node("DynamicQuantizeLinear", [x], *names)
            self._inputs[x] = names
        return self._inputs[x]

    def _values(self, weight: str) -> npt.NDArray[np.float32]:
        values: npt.NDArray[np.float32] = _onnx().numpy_helper.to_array(self._weights[weight])
        return values

    def _constants(
        self, weight: str, values: npt.NDArray[np.float32], scale: npt.NDArray[Any]
    ) -> tuple[str, str]:
        """Names of the rounded weights and of their scale."""
        names = f"{weight}_int8", f"{weight}_int8_scale"
        rounded = np.rint(values / scale).astype(np.int8)
        for name, array in zip(names, (rounded, scale.astype(np.float32)), strict=True):
            tensor = _onnx().numpy_helper.from_array(np.ascontiguousarray(array), name)
            self.constants[name] = tensor
        return names

    def _node(self, kind: str, inputs: list[str], *outputs: str, **options: int) -> None:
        node = _onnx().helper.make_node(kind, inputs, outputs, name=f"{outputs[0]}_{kind}")
        node.attribute.extend(_onnx().helper.make_attribute(k, v) for k, v in options.items())
        self.nodes.append(node)


def _onnx() -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.numpy_helper
    except ImportError:
        raise MissingExtraError("quantising needs onnx", "pip install 'snowmelt[export]'") from None
    return onnx
