"""What bounds an exported DeiT-Tiny in ONNX Runtime: each of its matrix products alone, against one of 1024^3.

    python benchmarks/gemm_shapes.py                       # docs/performance-export.md

Every product of a block at 224 pixels is a graph of its own, timed in the same rounds as the large one: what it
reaches of that one's rate is the most a network made of such products can reach, whatever surrounds them.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from vitcompress.core.words import counted
from vitcompress.exporters.latency import measure, physical_cores

TOKENS, WIDTH, HEADS = 197, 192, 3
LARGE = "1024 x 1024 x 1024"


@dataclass(frozen=True)
class Product:
    """``[stack,] rows x inner`` times ``inner x columns``; ``count`` of them in a block."""

    name: str
    rows: int
    inner: int
    columns: int
    stack: int = 1
    constant: bool = True
    count: int = 1

    @property
    def operations(self) -> float:
        """Floating-point operations of one."""
        return 2.0 * self.stack * self.rows * self.inner * self.columns


def products(batch: int) -> list[Product]:
    """Those of a block of DeiT-Tiny, tokens of all images in one matrix."""
    rows, head = TOKENS * batch, WIDTH // HEADS
    return [
        Product("query, key, value or projection", rows, WIDTH, WIDTH, count=4),
        Product("MLP, first", rows, WIDTH, 4 * WIDTH),
        Product("MLP, second", rows, 4 * WIDTH, WIDTH),
        Product("queries by keys", TOKENS, head, TOKENS, stack=HEADS * batch, constant=False),
        Product("weights by values", TOKENS, TOKENS, head, stack=HEADS * batch, constant=False),
    ]


def session(product: Product, folder: Path, threads: int) -> tuple[Any, dict[str, Any]]:
    """An ONNX Runtime session of the product alone, and its inputs."""
    random = np.random.default_rng(0)
    lead = [product.stack] if product.stack > 1 else []
    left = random.standard_normal([*lead, product.rows, product.inner]).astype(np.float32)
    right = random.standard_normal([*lead, product.inner, product.columns]).astype(np.float32)
    shapes = {"a": left.shape, "b": right.shape, "c": (*lead, product.rows, product.columns)}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "product",
        [values["a"]] if product.constant else [values["a"], values["b"]],
        [values["c"]],
        [numpy_helper.from_array(right, "b")] if product.constant else [],
    )
    path = folder / f"{product.name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = threads
    run = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return run, {"a": left} if product.constant else {"a": left, "b": right}


@click.command(help=__doc__)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--seconds", type=float, default=20.0, show_default=True)
def main(batch: int, seconds: float) -> None:
    """Print the table."""
    threads = physical_cores()
    listed = [Product(LARGE, 1024, 1024, 1024), *products(batch)]
    with tempfile.TemporaryDirectory() as folder:
        calls = {}
        for product in listed:
            run, given = session(product, Path(folder), threads)
            calls[product.name] = partial(run.run, None, given)
        times = measure(calls, seconds).milliseconds
    median = {name: float(np.median(samples)) / 1e3 for name, samples in times.items()}
    rate = {product.name: product.operations / median[product.name] for product in listed}
    rounds = len(times[LARGE])
    print(f"batch {batch}, {counted(threads, 'thread')}, {rounds} rounds, ONNX Runtime {onnxruntime.__version__}")
    print("\n| product | a block has | us | GFLOP/s | of the large one's rate |\n| --- | --- | --- | --- | --- |")
    for product in listed:
        shape = f"{product.stack} x " if product.stack > 1 else ""
        shape += f"{product.rows} x {product.inner} x {product.columns}"
        name = product.name if product.name == LARGE else f"{product.name}: {shape}"
        count = "-" if product.name == LARGE else str(product.count)
        share = rate[product.name] / rate[LARGE]
        print(f"| {name} | {count} | {median[product.name] * 1e6:.0f} | {rate[product.name] / 1e9:.0f} | {share:.0%} |")
    operations = sum(product.operations * product.count for product in listed[1:])
    together = sum(median[product.name] * product.count for product in listed[1:])
    reached = operations / together
    print(f"\nA block of these alone: {reached / 1e9:.0f} GFLOP/s, {reached / rate[LARGE]:.0%}.")


if __name__ == "__main__":
    main()
