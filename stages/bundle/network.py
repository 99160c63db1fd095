"""The student for Python in the bundle: as timm alone loads it, or else as a program that torch alone loads."""

from __future__ import annotations

from pathlib import Path

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.network_names import is_own
from vitcompress.exporters.programs import building, program
from vitcompress.stages.bundle.facts import Inputs
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.embedding import as_deployed
from vitcompress.stages.models.timm_files import is_stock, save_timm
from vitcompress.stages.models.weights import load_own, read_own
from vitcompress.stages.rewrites.deploy import deployed
from vitcompress.stages.rewrites.stock import timm_from_folded

PROGRAM = "torch/student.pt2"
_TIMM = """\
```python
import timm

network = timm.create_model("local-dir:THIS_FOLDER/timm", pretrained=True).eval()
```

timm alone loads the student, from `config.json` and `model.safetensors`; it takes normalised images, float32."""
_ALIKE = """\
 It is a VisionTransformer of timm's own, one block deeper than the student, that answers as it does: for inference in
float32 or bfloat16 (float16 overflows). The student's own weights are in `student.safetensors`."""
_LENGTH = " An embedding is its output divided by its length."
_PROGRAM = f"""\
```python
import torch

network = torch.export.load("THIS_FOLDER/{PROGRAM}").module()
```

No network of timm's own answers as this student does. It is a program of `torch.export` instead, which torch alone
loads, without code of anybody's: the version that made it (`versions` in `manifest.json`) or a later one. It takes and
gives what `model.onnx` does, in batches of 1 to {{batch}}, on the CPU."""


def network_files(inputs: Inputs, max_batch: int, root: Path, context: Context) -> tuple[dict[str, Path], str]:
    """Return the files by their places in the bundle, and what the model card says of them.

    Of a lift timm's own network is looked for (``stages.rewrites.stock``). A student that is none has both a program
    and what this program reads as a teacher; one of a user's own code the program alone.
    """
    spec, models, weights = inputs.distill.model, inputs.fold.models, inputs.fold.graphs
    alike, files, usage = None, {}, ""
    if "lift-folded" in models:
        folded = load_own(build_model(models["lift-folded"]), weights["lift-folded"], root).eval()
        alike = timm_from_folded(folded, models["lift-folded"])  # type: ignore[arg-type]  # the graph says what it is
    if not is_own(spec.arch):
        labels = () if spec.embedding else inputs.data.classes
        state = read_own(weights[spec.graph], root)
        paths = save_timm(root / "export" / "timm", spec, state, inputs.student.preprocess, labels, alike)
        files = {f"timm/{path.name}": path for path in paths}
    if alike is not None or is_stock(spec):
        usage = _TIMM + (_ALIKE if alike else "") + (_LENGTH if spec.embedding else "")
    else:
        try:
            files[PROGRAM] = _program(inputs, max(2, max_batch), root)
            usage = _PROGRAM.format(batch=max(2, max_batch))
        except ResultError as error:
            context.say(f"the bundle has no {PROGRAM}: {error}")
    return files, usage


def _program(inputs: Inputs, max_batch: int, root: Path) -> Path:
    """Write the deployed network as a program, whole or not at all; a ResultError is raised where torch cannot."""
    import torch

    name, preprocess = inputs.export.deployed, inputs.export.preprocess
    spec = inputs.fold.models[name]
    module = as_deployed(load_own(build_model(spec), inputs.fold.graphs[name], root), spec).eval()
    rewrite = bool(inputs.export.student[name].rewrites)
    ready = deployed(module, preprocess, preprocess.input, rewrite=rewrite).module
    size, pixels = preprocess.size, preprocess.input == "uint8"
    shape = (size, size, preprocess.channels) if pixels else (preprocess.channels, size, size)
    path = root / "export" / Path(PROGRAM).name
    draft = path.with_name(f".draft.{path.name}")
    with building("torch.export"):
        made = program(ready, torch.zeros(2, *shape, dtype=torch.uint8 if pixels else torch.float32), max_batch)
        for node in made.graph.nodes:
            for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
                node.meta.pop(key, None)  # paths of this machine, and names of classes that nobody needs
        torch.export.save(made, draft)
    return draft.replace(path)
