"""`compress completion`, and what a shell is offered for each kind of value: from sources that take no long import."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import click
from click.shell_completion import CompletionItem, get_completion_class

COMPLETION = "_COMPRESS_COMPLETE"
"""The environment variable by which a shell's script asks for completions."""
_MODEL = re.compile(r"^@register_model\ndef (\w+)", re.MULTILINE)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes `compress` in a shell.

    \b
    bash: echo 'eval "$(compress completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(compress completion zsh)"' >> ~/.zshrc
    fish: compress completion fish > ~/.config/fish/completions/compress.fish
    """
    root = click.get_current_context().find_root().command
    kind: Any = get_completion_class(shell)
    click.echo(kind(root, {}, "compress", COMPLETION).source(), nl=False)


def _models() -> Iterator[str]:
    """Yield the architectures of timm, read in its sources: importing it takes seconds."""
    timm = find_spec("timm")
    folders = timm.submodule_search_locations if timm else None
    for file in sorted(Path(folders[0], "models").glob("*.py")) if folders else ():
        yield from _MODEL.findall(file.read_text(encoding="utf-8"))


def _targets() -> Iterable[str]:
    from vitcompress.exporters.targets import registered

    return registered()


def _settings() -> Iterator[str]:
    from vitcompress.core.record import Record
    from vitcompress.pipeline.config import RunConfig

    def below(section: type[Record], prefix: str) -> Iterator[str]:
        for name, field in section.model_fields.items():
            kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
            records = [kind for kind in kinds if issubclass(kind, Record)]
            if not name.endswith("_reason"):
                yield from below(records[0], f"{prefix}{name}.") if records else (f"{prefix}{name}=",)

    yield from below(RunConfig, "")


OFFERED: dict[str, Callable[[], Iterable[str]]] = {
    "--config": lambda: sorted(file.stem for file in Path(__file__).parents[1].glob("recipes/*.yaml")),
    "--control": lambda: ("labels", "none"),
    "--data": lambda: ("digits",),
    "--precision": lambda: ("fp32", "fp16", "int8", "int8-qat", "bf16", "fp8", "int4"),
    "--projector": lambda: ("fold", "keep", "auto"),
    "--set": _settings,
    "--strategy": lambda: ("plain", "lift", "widelast", "uniform", "auto"),
    "--student": _models,
    "--target": _targets,
    "--task": lambda: ("classification", "multilabel", "embedding"),
    "--teacher": _models,
    "analyze --model": _models,
    "models pattern": _models,
    "predict --model": lambda: ("onnx", "engine"),
    "show name": lambda: OFFERED["--config"](),
    "install name": _targets,
    "remove name": _targets,
}
"""What a value may be, by option, or by command and parameter; any other text, and a file, may be given too."""


def offer(command: click.Command) -> None:
    """Let a shell complete the values of ``OFFERED`` in a command and those below it."""
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        offer(below)
    for parameter in command.params:
        name = parameter.opts[0]
        if names := OFFERED.get(f"{command.name} {name}") or OFFERED.get(name):
            vars(parameter)["shell_complete"] = partial(_complete, names)


def _complete(names: Callable[[], Iterable[str]], context: click.Context, given: str) -> list[CompletionItem[str]]:
    """Return the names that begin so, the last of a list with commas; else files; of timm from 3 letters on."""
    before, comma, begun = given.rpartition(",")
    few = names is _models and len(begun) < 3
    found = [] if few else [name for name in names() if name.startswith(begun)]
    return [CompletionItem(f"{before}{comma}{name}") for name in found] or [CompletionItem(given, type="file")]
