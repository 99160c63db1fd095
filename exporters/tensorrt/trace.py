"""Where every layer of a built engine comes from in the ONNX graph, and what each matrix product of it became.

TensorRT names in each layer the nodes that it was built of. So each product of the graph is looked up in the engine,
and its dtype there is held against the graph's. It needs no GPU where the builder logs the layers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitcompress.core.artifact_records import EngineTrace
from vitcompress.core.errors import ResultError
from vitcompress.exporters.precision.audit import CONVERTERS, node_dtypes
from vitcompress.exporters.precision.graph import MOVES, PRODUCTS, inferred
from vitcompress.exporters.tensorrt.audit import DTYPES
from vitcompress.exporters.tensorrt.layers import UNKNOWN, WIDTH, Layer

QUANTIZED = ("int8", "fp8")
MAX_WIDENED = 0.25
"""Largest share of the quantized products that an int8 or fp8 engine may compute in a wider dtype.

Measured (tensorrt-rtx 1.7, docs/engines.md): where a graph cuts the result of one quantized product into queries, keys
and values, the builder dequantizes its weight and multiplies in float32. That is one of a block's four products with
a weight.
"""
_LOST = "computes; merged into other nodes, or left out"
_NAMED = 5
_PRECISIONS: dict[str, str] = {dtype: precision for precision, dtype in DTYPES.items()}
_WIDTHS = {_PRECISIONS[dtype]: width for dtype, width in WIDTH.items()}


@dataclass(frozen=True)
class Product:
    """A matrix product of the graph, and what it became."""

    name: str
    operator: str
    asked: str
    """Precision that it has in the graph."""
    given: str
    """Precision that it has in the engine; ``unknown`` where TensorRT does not tell."""
    layers: tuple[str, ...]
    """The engine's layers that compute it."""

    @property
    def words(self) -> str:
        """Return both precisions, as in ``int8 asked for, fp32 built``."""
        return f"{self.asked} asked for, {self.given} built"

    @property
    def differs(self) -> bool:
        """Return whether the engine is known to compute it in another precision."""
        return self.given not in (self.asked, UNKNOWN)

    @property
    def widened(self) -> bool:
        """Return whether it is quantized and computes in a wider precision."""
        return self.differs and self.asked in QUANTIZED and self.given not in QUANTIZED


@dataclass(frozen=True)
class Trace:
    """Every layer of an engine, traced."""

    graph: str
    """Name of the ONNX file."""
    layers: tuple[Layer, ...]
    operators: Mapping[str, str]
    """ONNX operator by node."""
    products: tuple[Product, ...]
    """The graph's matrix products, without constant ones, which are computed when the engine is built."""
    absent: Mapping[str, str]
    """Nodes that no layer names, with the reason; ``_LOST`` where there is none."""

    @property
    def counted(self) -> tuple[Layer, ...]:
        """Return the layers, without those that compute only shapes."""
        return tuple(layer for layer in self.layers if not layer.shapes_only)

    @property
    def untraced(self) -> tuple[Layer, ...]:
        """Return the counted layers that name no node of the graph."""
        return tuple(layer for layer in self.counted if not self.operators.keys() & set(layer.nodes))

    @property
    def lost(self) -> tuple[str, ...]:
        """Return nodes that compute and are in no layer."""
        return tuple(name for name, what in self.absent.items() if what == _LOST)

    def record(self) -> EngineTrace:
        """Return what the report tells."""
        return EngineTrace(
            layers=len(self.counted),
            untraced=len(self.untraced),
            products=dict(Counter(one.given for one in self.products).most_common()),
            otherwise={one.name: one.words for one in self.products if one.differs},
            lost=self.lost,
        )

    def json(self) -> str:
        """Return the whole trace as JSON, for a reader."""
        layers = [
            {
                "name": layer.name,
                "type": layer.kind,
                "precision": _PRECISIONS.get(layer.dtype or "", layer.dtype),
                "multiplies": layer.is_product,
                "shapes_only": layer.shapes_only,
                "nodes": [{"name": name, "operator": self.operators.get(name)} for name in layer.nodes],
            }
            for layer in self.layers
        ]
        found = {
            "graph": self.graph,
            "products": [asdict(one) for one in self.products],
            "layers": layers,
            "untraced_layers": [layer.name for layer in self.untraced],
            "nodes_in_no_layer": self.absent,
        }
        return json.dumps(found, indent=1) + "\n"


def trace_engine(layers: Sequence[Layer], onnx_path: Path) -> Trace | None:
    """Trace the layers of the engine that was built of ``onnx_path``; None where none names a node.

    A ResultError is raised where the types in the graph cannot be inferred.
    """
    import onnx

    by_node: dict[str, list[Layer]] = {}
    for layer in layers:
        for name in layer.nodes:
            by_node.setdefault(name, []).append(layer)
    if not by_node:
        return None
    model = inferred(onnx.load(onnx_path, load_external_data=False), onnx_path.name)
    known = _known_values(model.graph)
    products = tuple(
        _product(_name_of(node), node.op_type, asked, by_node.get(_name_of(node), []))
        for node, asked in node_dtypes(model)
        if node.op_type in PRODUCTS and not known.issuperset(node.output)
    )
    absent = {_name_of(node): _explained(node, known) for node in model.graph.node if _name_of(node) not in by_node}
    operators = {_name_of(node): node.op_type for node in model.graph.node}
    return Trace(onnx_path.name, tuple(layers), operators, products, absent)


def _name_of(node: Any) -> str:
    """Return what TensorRT calls a node, which need not have a name."""
    return node.name or f"node_of_{node.output[0]}"


def _product(name: str, operator: str, asked: str, named: Sequence[Layer]) -> Product:
    """Return a product from the layers that name it; those that only lay out numbers for another are left out."""
    computing = [layer for layer in named if layer.is_product] or named
    found = {_PRECISIONS.get(layer.multiplies_in, UNKNOWN) for layer in computing} or {UNKNOWN}
    others = found - {asked, UNKNOWN}
    given = max(others, key=_WIDTHS.__getitem__) if others else UNKNOWN if UNKNOWN in found else asked
    return Product(name, operator, asked, given, tuple(layer.name for layer in computing))


def _known_values(graph: Any) -> set[str]:
    """Return the tensors that no image changes: constants and shapes, and what is computed of them alone."""
    known = {"", *(tensor.name for tensor in graph.initializer)}
    for node in graph.node:
        if node.op_type in ("Shape", "Size") or known.issuperset(node.input):
            known.update(node.output)
    return known


def _explained(node: Any, known: set[str]) -> str:
    """Return why a node may be in no layer; ``_LOST`` where it should be in one."""
    if known.issuperset(node.output):
        return "constant, or a shape"
    return "moves or converts numbers" if node.op_type in MOVES | CONVERTERS else _LOST


def check_trace(trace: Trace, file: Path) -> None:
    """Refuse an engine, by a ResultError that names ``file``, whose products are not those of its graph.

    An engine is refused where a layer that multiplies names no node of the graph, where a product is in no layer, and
    where a product is known to compute in another precision than the graph's. One exception is allowed: up to
    ``MAX_WIDENED`` of the quantized products may compute in a precision that is not quantized.
    """
    about, see = f"the engine of {trace.graph}", f"see {file}."
    stray = [layer.name for layer in trace.untraced if layer.is_product]
    if stray:
        raise ResultError(f"{about} has matrix products that trace to no node of it: {_first(stray)}; {see}")
    lost = [name for name in trace.lost if trace.operators[name] in PRODUCTS]
    if lost:
        raise ResultError(f"{about} lacks matrix products of it: {_first(lost)}; {see}")
    wrong = [one for one in trace.products if one.differs and not one.widened]
    widened = [one for one in trace.products if one.widened]
    asked = [one for one in trace.products if one.asked in QUANTIZED]
    limit = ""
    if len(widened) > MAX_WIDENED * len(asked):
        wrong += widened
        limit = f"at most {MAX_WIDENED:.0%} of the {len(asked)} quantized ones may be wider; "
    if wrong:
        words = [f"{one.name} ({one.words})" for one in wrong]
        raise ResultError(
            f"{about} computes {len(wrong)} of {len(trace.products)} matrix products otherwise than the graph asks: "
            f"{_first(words)}; {limit}{see}"
        )


def _first(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
