"""The model card of a bundle, README.md: what it is, what it costs, what it may be used for, how to run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.exporters import targets
from vitcompress.exporters.bundled import BundledModel, Kind, Part

_CARD = """\
{% if embeds %}
# Image embeddings made by `compress`

A network that gives {{ classes }} numbers, of length 1, for a {{ spec.size }} x {{ spec.size }} pixel image; images \
are compared by the cosine of two, their dot product.
{% else %}
# Image classifier made by `compress`

A network of {{ classes }} classes{{ ", any number of them an image," if several else "" }} \
for {{ spec.size }} x {{ spec.size }} pixel images.
{% endif %}

- **Student** (what is deployed): {{ card.student }}
- **Teacher** (what it imitates): {{ card.teacher }}
- **Strategy**: {{ card.strategy }}

## Run it

```sh
pip install numpy pillow onnxruntime
python infer.py IMAGE_OR_FOLDER...
```

Or, with `compress` installed, every file checked against `manifest.json` (size and SHA-256) before use:

```sh
compress predict THIS_FOLDER IMAGE_OR_FOLDER...{{ "" if embeds else " --top 3" }}
{% for row in recommended[1:] %}
compress predict THIS_FOLDER IMAGE_OR_FOLDER... --model {{ row.file }}
{% endfor %}
```
{% for usage in added if usage %}

{{ usage }}
{% endfor %}
{% if card.python %}

In Python, without `compress`:

{{ card.python }}
{% endif %}

## Accuracy and latency

On {{ card.held_out_images }} held-out images; brackets are 95 % intervals.

| file | {{ card.score }} % | points below the teacher | median latency | against fp32 | measured on |
| --- | --- | --- | --- | --- | --- |
{% for part in parts %}
| `{{ part.model.file }}` | {{ measured(part.model.facts) | join(" | ") }} |
{% endfor %}
{% if card.method %}

Latency: {{ card.method }}.
{% endif %}

{% for row in recommended %}
- **Recommended**: `{{ row.file }}`{{ ": " ~ row.why if row.why else "" }}
{% endfor %}
{% for name, reason in card.rejected %}
- Made, and left out: {{ name }}: {{ reason }}
{% endfor %}
{% for part in built %}
- {{ built_line(part.model) }}
{% endfor %}

## Input and output

- `{{ interface.images.name }}`: {{ interface.images.dtype }} `[batch, {{ interface.images.shape | join(", ") }}]`, \
{{ spec.pixel.words }}, prepared as `preprocess.json` says; `prepare` in `infer.py` does it.
- `{{ interface.logits.name }}`: float32 `[batch, {{ classes }}]`; \
{{ "of length 1 already." if embeds else "line i of `labels.txt`, from 0, names logit i." }}

## Training data

{{ card.data }}: {% if not embeds %}{{ classes }} classes, {% endif %}{{ card.train_images }} images to train on and \
{{ card.held_out_images }} held out. Digest of the listing: `{{ card.data_digest }}`.

## Intended use and limits

{% if several %}
Telling which classes of `labels.txt` are in images like those it was trained on: those whose probability (the sigmoid
of the logit) is above their threshold in `manifest.json`, that of the highest F1 on the held-out images. \
{% elif embeds %}
Finding and comparing images like those it was trained on. Its embeddings are near the teacher's but no exchange for \
them: an index is built with one of the two. \
{% else %}
Telling the classes of `labels.txt` apart in images like those it was trained on. It names one of its classes for any
image; its probabilities are not calibrated. \
{% endif %}
The figures above are of held-out images from the same source.

## Licence

Not stated. The licences of the training data and of the teacher's weights bind this model too, and `compress` cannot \
know them: whoever passes this bundle on has to state them here. Apache-2.0 is the licence of `compress` and of \
`infer.py` alone.
"""


@dataclass(frozen=True)
class CardFacts:
    """What the model card says beyond what the bundle's files say themselves."""

    teacher: str
    """Architecture that was imitated, and where its weights came from."""
    student: str
    """Architecture that is deployed, with its parameters."""
    strategy: str
    """What was done to it, in words."""
    data: str
    data_digest: str
    """Source of the training images, and SHA-256 over their listing."""
    train_images: int
    held_out_images: int
    """Images that the accuracy figures are of; none of them was trained on."""
    method: str = ""
    """How latency was measured, and on what machine."""
    rejected: tuple[tuple[str, str], ...] = ()
    """Models that were made and left out: name and reason."""
    score: str = "top-1"
    """What accuracy is called: of the facts of models, their ``top1``."""
    python: str = ""
    """How the network in Python is loaded, and what it is; Markdown."""


def model_card(
    card: CardFacts,
    preprocess: PreprocessSpec,
    parts: Mapping[str, Part],
    recommended: Mapping[Kind, Mapping[str, str]],
    added: Sequence[str],
    several: bool,
) -> str:
    """Return README.md of a bundle, Markdown; ``added`` is what targets say of the files that they added."""
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 - Markdown, not HTML
        trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    interface = next(iter(parts.values())).interface
    return environment.from_string(_CARD).render(
        card=card,
        spec=preprocess,
        classes=interface.classes,
        embeds=interface.embeds,
        interface=interface,
        parts=parts.values(),
        built=[part for part in parts.values() if part.model.is_built],
        measured=partial(_measured, card.score),
        built_line=_built,
        recommended=list(recommended.values()),
        added=added,
        several=several,
    )


def _measured(score: str, facts: Mapping[str, Any]) -> list[str]:
    """Return the cells of a model's row of figures."""
    latency = _with_interval(facts, "p50_ms", "p50", 3)
    said = []
    if facts.get("max_difference") is not None:
        said.append(f"logits within {facts['max_difference']:.2g} of torch")
    if facts.get("agreement") is not None:
        said.append(f"{'top-1' if score == 'top-1' else 'the answer'} of fp32 on {facts['agreement']:.2%}")
    where = facts.get("measured_on") or f"unmeasured: {facts.get('unmeasured', 'nobody has yet')}"
    return [
        _with_interval(facts, "top1", "top1", 2),
        _with_interval(facts, "drop", "drop", 2),
        latency if latency == "unmeasured" else f"{latency} ms, batch {facts.get('batch', 1)}",
        "; ".join(said) or "-",
        str(where).replace("|", "\\|"),
    ]


def _with_interval(facts: Mapping[str, Any], name: str, stem: str, digits: int) -> str:
    value, low, high = facts.get(name), facts.get(f"{stem}_low"), facts.get(f"{stem}_high")
    if value is None:
        return "unmeasured"
    between = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:.{digits}f}{between}"


def _built(model: BundledModel) -> str:
    """Return the line about what a model that another target built runs on."""
    target, facts = targets.get(model.runtime), model.facts
    version = f" {facts['version']}" if facts.get("version") else ""
    hardware = f", for {', '.join(map(str, facts['hardware']))}" if facts.get("hardware") else ""
    return f"`{model.file}`: {target.title}{version}{hardware}. {target.note}".rstrip()
