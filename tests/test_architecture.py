"""The house rules that no reviewer should have to check by eye (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from vitcompress.pipeline.plan import STAGES

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("core", "exporters", "stages", "pipeline")
"""Lowest first: each may import itself and what stands before it."""
LIBRARIES = {"analysis", "images", "judging", "models", "rewrites", "training"}
"""Folders of stages/ that are no stage but what stages share."""
OPTIONAL = {"tensorrt", "tensorrt_rtx", "onnxruntime", "datasets", "webdataset", "tensorflow_datasets"} | {
    "openvino",
    "executorch",
    "torchao",
    "ncnn",
    "coremltools",
    "ai_edge_litert",
    *("wandb", "mlflow", "tensorboard", "trackio"),
}
MODULES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
STAGE_FOLDERS = {path.parent.name for path in (ROOT / "stages").glob("*/__init__.py")}


def is_put_off(node: ast.AST) -> bool:
    """Whether importing a file does not carry the node out: a function's body, or what only type checkers read."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.dump(node.test)
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))


def imports(path: Path, *, module_level: bool = False) -> Iterator[str]:
    """Dotted names that a file imports; ``module_level``: only those that importing the file carries out."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                yield from (f"{child.module}.{alias.name}" for alias in child.names)
            elif not (module_level and is_put_off(child)):
                yield from walk(child)

    yield from walk(ast.parse(path.read_text()))


def ours(names: Iterator[str]) -> Iterator[str]:
    """The names below `vitcompress`, without that."""
    return (name.removeprefix("vitcompress.") for name in names if name.startswith("vitcompress."))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 40
    stages = {stage.module.split(".")[2] for stage in STAGES}
    assert (stages | LIBRARIES) - STAGE_FOLDERS == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_our_own_code_is_imported_from_one_package(path: Path) -> None:
    assert [name for name in imports(path) if name.partition(".")[0] in LAYERS] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_imports_upward(path: Path) -> None:
    above = LAYERS[LAYERS.index(path.relative_to(ROOT).parts[0]) + 1 :]
    assert [name for name in ours(imports(path)) if name.partition(".")[0] in above] == []


@pytest.mark.parametrize("path", [path for path in MODULES if "stages" in path.parts], ids=name_of)
def test_sibling_stages_do_not_import_each_other(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    own = parts[1] if len(parts) > 2 else ""
    used = {name.split(".")[1] for name in ours(imports(path)) if name.startswith("stages.")}
    assert used - {own} <= LIBRARIES


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent.name == "core"], ids=name_of)
def test_core_never_imports_torch(path: Path) -> None:
    assert [name for name in imports(path) if name.partition(".")[0] in {"torch", "torchvision", "timm"}] == []


@pytest.mark.parametrize("path", [path for path in MODULES if "exporters" in path.parts], ids=name_of)
def test_exporters_import_torch_only_inside_functions(path: Path) -> None:
    names = {name.partition(".")[0] for name in imports(path, module_level=True)}
    assert not names & {"torch", "torchvision", "timm"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_optional_libraries_are_imported_inside_functions(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports(path, module_level=True)} & OPTIONAL


def torch_free() -> list[str]:
    configs, core = (
        [".".join(("vitcompress", *path.relative_to(ROOT).with_suffix("").parts)) for path in ROOT.glob(pattern)]
        for pattern in ("stages/*/config.py", "core/*.py")
    )
    others = (
        "stages.images.sources", "exporters.runners", "exporters.predict", "exporters.bundle", "pipeline.report.schema",
        "pipeline.compare.tell", "pipeline.compare.plot", "pipeline.check.command", "pipeline.config", "pipeline.plan",
        "pipeline.cli",
    )  # fmt: skip
    return sorted([*configs, *core, *(f"vitcompress.{name}" for name in others)])


def test_configs_plan_and_command_line_import_without_torch() -> None:
    program = (
        "import importlib, sys\n"
        "heavy = {'torch', 'timm', 'torchvision', 'onnx', 'onnxruntime', 'tensorrt', 'tensorrt_rtx', 'datasets'}\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert not heavy & set(sys.modules), (name, sorted(heavy & set(sys.modules)))\n"
    )
    names = torch_free()
    assert len(names) > 15
    done = subprocess.run(
        [sys.executable, "-c", program, *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_circle_between_files() -> None:
    """Not inside functions either, nor for types alone."""
    files = {
        ".".join(("vitcompress", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in MODULES
    }
    imported = {
        name: {found for one in imports(path) for found in (one, one.rpartition(".")[0]) if found in files}
        for name, path in files.items()
    }
    # A package whose __init__ re-exports its own files is not in a circle with them.
    graph = {name: {one for one in used if not name.startswith(f"{one}.")} for name, used in imported.items()}
    circle: list[str] = []
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]
    assert circle == []


def test_no_two_test_files_share_a_name() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert len(names) == len(set(names))
