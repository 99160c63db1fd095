"""The files that verifying writes into the run directory.

RUN/verify/answers.csv.gz  every image with its class, and each model's answer and confidence
RUN/verify/held-out.json   every image with its class and digest (stages.images.listed)
RUN/verify/logits.safetensors  torch's logits of teacher and deployed graph
RUN/verify/flips/          thumbnails of flipped images, named by the image's position in the held-out split
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitcompress.core.files import reference, write_atomic
from vitcompress.core.record import FileRef
from vitcompress.stages.judging.answers import NO_ANSWER, HeldOut
from vitcompress.stages.judging.contestant import Contestant


def write_answers(root: Path, models: Sequence[Contestant], held_out: HeldOut, classes: Sequence[str]) -> FileRef:
    """Write the answers of every model that could be run; return the file's record.

    Gzipped CSV in UTF-8, one line an image: ``image``, ``class``, and of each model ``MODEL RUNTIME PRECISION answer``
    and ``... confidence`` (0 to 1, five decimals). Classes are names; no answer (NaN) is an empty field. The same
    answers give the same bytes.
    """
    given = [(each, answers) for each, answers in zip(models, held_out.answers, strict=True) if answers]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{each.model} {each.runtime} {each.precision}" for each, _ in given]
    writer.writerow(["image", "class", *(f"{name} {what}" for name in names for what in ("answer", "confidence"))])
    columns: list[Sequence[str]] = [
        held_out.names,
        ["" if label < 0 else classes[label] for label in held_out.labels.tolist()],
    ]
    for _, answers in given:
        columns.append(["" if answer == NO_ANSWER else classes[answer] for answer in answers.answer.tolist()])
        columns.append([f"{confidence:.5f}" for confidence in answers.confidence.tolist()])
    writer.writerows(zip(*columns, strict=True))
    path = root / "verify" / "answers.csv.gz"
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file:  # no name or time in its header
        file.write(text.getvalue().encode())
    write_atomic(path, packed.getvalue())
    return reference(path, root)


def write_thumbnails(root: Path, pictures: Mapping[int, bytes]) -> dict[int, str]:
    """Write thumbnails and remove earlier ones; return their paths relative to ``root``, by position."""
    folder = root / "verify" / "flips"
    shutil.rmtree(folder, ignore_errors=True)
    paths = {position: folder / f"{position:06d}.webp" for position in pictures}
    for position, path in paths.items():
        write_atomic(path, pictures[position])
    return {position: path.relative_to(root).as_posix() for position, path in paths.items()}


_HEADER = 256
"""Bytes before the numbers in a safetensors file, its own count of 8 included; the format allows spaces at the end."""
KeepLogits = Callable[[NDArray[np.float32], NDArray[np.float32]], None]
"""Takes logits ``[B, K]`` of the teacher and of the deployed graph."""


@contextmanager
def writing_logits(path: Path) -> Iterator[KeepLogits]:
    """Write ``logits`` float32 ``[N, 2, K]`` to a safetensors file, batch by batch, since all of them may be large.

    Yields what takes the logits of a batch, the images in order; the file is there when the block ends well.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    shape = [0, 2, 0]
    try:
        with draft.open("wb") as file:
            file.write(bytes(_HEADER))

            def keep(teacher: NDArray[np.float32], student: NDArray[np.float32]) -> None:
                both = np.stack([teacher, student], axis=1).astype("<f4", copy=False)
                shape[0], shape[2] = shape[0] + len(both), both.shape[2]
                file.write(both.tobytes())

            yield keep
            described: dict[str, Any] = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * int(np.prod(shape))]}
            size = _HEADER - 8
            file.seek(0)
            file.write(size.to_bytes(8, "little") + json.dumps({"logits": described}).encode().ljust(size))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
