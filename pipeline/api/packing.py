"""`compress data pack` from Python."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from vitcompress.core.context import Context
from vitcompress.core.errors import UsageError
from vitcompress.core.pillow import hushed
from vitcompress.core.record import Record
from vitcompress.core.rundir import RunDirectory
from vitcompress.pipeline.api.arguments import PathLike, Settings, assignments, console_of, request_of

SIZE = 256


class Packed(Record):
    """What :func:`vitcompress.pack` wrote."""

    folder: Path
    """For ``data`` of :func:`vitcompress.run`, or ``--data``."""
    images: int
    """Training images."""
    pixel_bytes: int
    """That they take."""
    size: int | None
    """Pixels that their shorter side has at most; None: as it was."""
    held_out: int
    """Held-out images, as they were."""
    held_out_bytes: int


def pack(
    source: PathLike,
    output: PathLike,
    *,
    size: int | None = SIZE,
    settings: Settings | None = None,
    progress: bool = True,
) -> Packed:
    """Decode every training image once, and write a folder that is a source of images itself: `compress data pack`.

    The images are checked and split as a run would; the pack keeps that split. Held-out images stay the files they are.

    Args:
        source: what `compress run` takes as --data.
        output: a folder that does not exist or is empty.
        size: pixels that the shorter side of training images is scaled down to, never up; None keeps it.
        settings: of ``data``, by dotted name: ``{"data.on_bad_image": "skip"}``.
        progress: whether to print a bar to stderr.

    Raises:
        CompressError: images that cannot be used, or a folder that cannot be written.

    Example:
        >>> packed = vc.pack("digits", "digits-16", size=16, progress=False)
        >>> packed.images, packed.held_out, packed.pixel_bytes
        (1438, 359, 1104384)
    """
    from vitcompress.pipeline.config import parse_sets, requested_config, with_absolute_paths
    from vitcompress.pipeline.request import refuse_inside_data
    from vitcompress.stages.data import stage as data_stage
    from vitcompress.stages.images.packing import write_pack
    from vitcompress.stages.images.sources import recorded_images
    from vitcompress.stages.training.monitor import Pace, progress_bar

    sets = assignments(settings)
    if others := [name for name in parse_sets(sets) if name != "data"]:
        raise UsageError(f"a pack is made by the settings of data alone, and '{others[0]}' was given; leave it out.")
    if size is not None and size < 1:
        raise UsageError(f"size is {size}, should be 1 pixel or more, or None to keep every image's own.")
    folder = Path(os.path.abspath(output))  # noqa: PTH100 - resolve() follows links
    # No settings are whole without networks, though these are not used.
    asked = request_of(data=source, settings=sets, teacher="cait_s24", student="deit_tiny")
    config = with_absolute_paths(requested_config(**asked))
    refuse_inside_data(folder, config)
    data = config.data.model_copy(update={"sampling": "uniform"})  # a training's, which would weigh twice
    if not (pixel := config.data.pixel).plain:
        raise UsageError(
            f"a pack holds 8-bit RGB, and not {pixel.words} (data.channels, data.bits); train on the files."
        )
    with hushed(), TemporaryDirectory(prefix="compress-pack-") as place:
        run = RunDirectory.claim(Path(place) / "run", {"pack": config.data.source})
        context = Context(run=run, seed=config.seed, console=console_of(progress), verbose=False)
        _, images = recorded_images(data_stage.run(data, data_stage.Inputs(), context))
        pace = Pace()
        with progress_bar(context) as bar:
            task = bar.add_task("packing", total=len(images.train) + len(images.val), rate="-")

            def advance() -> None:
                pace.images += 1
                bar.update(task, completed=pace.images, rate=f"{pace.rate:.0f}")

            written = write_pack(images, folder, source=config.data.source, size=size, advance=advance)
    held_out_bytes = sum(count for _, _, count in written.held_out)
    return Packed(
        folder=folder,
        images=written.images,
        pixel_bytes=written.pixel_bytes,
        size=size,
        held_out=len(written.held_out),
        held_out_bytes=held_out_bytes,
    )
