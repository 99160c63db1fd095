from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from made_bundles import CARD, RTX, fp32, make
from tiny_models import SIZE

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters.bundle import BundledModel

MEASURED = {
    "top1": 97.49,
    "top1_low": 95.3,
    "top1_high": 98.7,
    "drop": 0.56,
    "drop_low": -1.16,
    "drop_high": 2.27,
    "p50_ms": 0.173,
    "p50_low": 0.17,
    "p50_high": 0.18,
    "batch": 1,
    "measured_on": "Intel Xeon, 2 cores, ONNX Runtime 1.32",
}


def test_the_card_says_what_it_is_and_what_it_costs(tmp_path: Path, onnx_file: Path, spec: PreprocessSpec) -> None:
    (tmp_path / "e").write_bytes(b"an engine")
    int8 = {"max_difference": 0.0493, "agreement": 0.9972}
    models = [
        fp32(onnx_file, **MEASURED),
        BundledModel("int8", onnx_file, "onnx", "int8", facts=int8),
        BundledModel("rtx", tmp_path / "e", "tensorrt-rtx", "fp16", facts={**RTX, "unmeasured": "no GPU was found"}),
    ]
    make(
        tmp_path / "b",
        onnx_file,
        spec,
        models=models,
        default={"onnx": "student", "engine": "rtx"},
        default_why={"onnx": "int8 is not faster here"},
        card=replace(CARD, rejected=(("model.fp8.onnx", "differs by 3.1 in logits"),)),
    )
    card = (tmp_path / "b" / "README.md").read_text()
    for words in (
        "imitates): cait_s24_224, a file of the user's",
        "last block widened to 64",
        "On 359 held-out images; brackets are 95 % intervals.",
        "| `model.onnx` | 97.49 [95.30, 98.70] | 0.56 [-1.16, 2.27] | 0.173 [0.170, 0.180] ms, batch 1 | - "
        "| Intel Xeon, 2 cores, ONNX Runtime 1.32 |",
        "| `model.int8.onnx` | unmeasured | unmeasured | unmeasured "
        "| logits within 0.049 of torch; top-1 of fp32 on 99.72% "
        "| unmeasured: nobody has yet |",
        "unmeasured: no GPU was found |",
        "- **Recommended**: `model.onnx`: int8 is not faster here",
        "- Made, and left out: model.fp8.onnx: differs by 3.1 in logits",
        "- `model.fp16.tensorrt-rtx.engine`: TensorRT-RTX 1.7.1, for 8.0, 8.6. It loads only in the TensorRT",
        "scikit-learn's digits: 10 classes, 1438 images to train on and 359 held out",
        "`" + "d" * 64 + "`",
        f"float32 `[batch, 3, {SIZE}, {SIZE}]`",
        "python infer.py IMAGE_OR_FOLDER...",
        "IMAGE_OR_FOLDER... --model model.fp16.tensorrt-rtx.engine\n",
    ):
        assert words in card
    licence = card.partition("## Licence")[2]
    assert "Not stated." in licence
    assert "Apache-2.0 is the licence of `compress` and of `infer.py` alone" in licence
