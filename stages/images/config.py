"""Settings of the images (torch-free)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from vitcompress.core.images import Bits, Channels
from vitcompress.core.record import Record
from vitcompress.core.records import Task


class AugmentConfig(Record):
    """Training augmentation, carried out by timm's transforms. `auto`: as strong as the length of the training and the
    size of the network bear (``pipeline.config.training``); each training's own values are in its section of the
    resolved settings."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    crop_scale: tuple[float, float] | Literal["auto"] = "auto"
    """Smallest and largest share of the image's area that a random resized crop takes."""
    crop_ratio: tuple[float, float] = (0.75, 1.3333333333333333)
    """Smallest and largest aspect ratio of that crop."""
    hflip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip; 0 where left and right have meaning, as in digits and text."""
    auto_augment: str | None = "auto"
    """timm's automatic augmentation policy; null for none."""
    color_jitter: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """Strength of colour jitter; timm leaves it out when auto_augment is set."""
    random_erasing: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = "auto"
    """Probability of erasing a rectangle (pixel mode)."""
    interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic"
    """Resampling of the random crop."""
    repeats: int = Field(1, ge=1, le=16)
    """Augmented views of each image drawn in one pass (repeated augmentation, Hoffer et al. 2020); the pass keeps its
    length, over 1/repeats of the images."""
    mixup: float = Field(0.0, ge=0)
    """Alpha of mixup over a batch; 0 for none. Needs the live teacher (distill.views=0) and an even batch."""
    cutmix: float = Field(0.0, ge=0)
    """Alpha of CutMix over a batch, in turn with mixup where both are on; 0 for none."""
    backend: Literal["pillow", "torchvision"] = "pillow"
    """What cuts the random crop. pillow: as timm does. torchvision: kernels for 8 bits cut it, and a JPEG of which the
    crop is at least 2, 4 or 8 times as large as the input is decoded at that fraction. More images a second
    (docs/loading.md); a pixel differs by about 1 of 255 levels, more where the JPEG was decoded smaller. Images of 16
    bits, or of other channels than 1 and 3, are always cut by torchvision, in floating point."""
    normalize_on: Literal["cpu", "device"] = "cpu"
    """Where pixels become normalised floats. device: loaders hand over 8-bit pixels, a quarter of the bytes, and the
    network's device normalises them, to the same bits; the noise of random erasing is then rounded to pixels."""


class ColumnsConfig(Record):
    """Names of the columns of a manifest or of a datasets folder; null: found by the usual names (docs/manifest.md)."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    image: str | None = None
    """Path of the image, or the image itself."""
    label: str | Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """Class or classes of the image; a list of columns: each is a class, and holds 0 or 1."""
    split: str | Literal[False] | None = None
    """Split of the image; false: no column."""
    group: str | Literal[False] | None = None
    """What stays in one split, such as a patient or a product; false: no column."""
    weight: str | Literal[False] | None = None
    """How often training draws the image, relative to others, 0 or more; false: no column."""


class DataConfig(Record):
    """Which images, and how they are split and read."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    # A training has an augmentation of its own.
    volatile: ClassVar[frozenset[str]] = frozenset({"check", "augment", "on_bad_image", "on_duplicates"})
    later: ClassVar[frozenset[str]] = frozenset(
        {"task", "labelled", "unlabelled", "classes", "columns", "label_separator", "sampling"}
        | {"channels", "bits", "mean", "std"}
    )

    source: str = Field("digits", min_length=1)
    """`digits` (embedded), a folder of class folders (with or without train/ and val/) on this machine or behind a URL
    (`s3://BUCKET/PREFIX` and what else fsspec knows), a name with timm's prefix
    (`hfds/NAME`, `torch/NAME`, `wds/NAME`, `tfds/NAME`), a manifest (.csv, .tsv, .jsonl, .parquet), a folder that
    Hugging Face datasets wrote, or what a source of another package takes."""
    task: Task = "classification"
    """What the networks give: one class an image, `multilabel` any number of them, `embedding` a vector that images are
    compared by. Also given as `task` at the top, or by --task."""
    labelled: bool = True
    """Whether images have classes. false: `source` is a folder of images of no class, in whatever folders, and the
    teacher's answers are all that is learned and judged."""
    unlabelled: str | None = None
    """Folder of further images, of no class, in whatever folders, that the student learns from the teacher alone."""
    classes: int | str | tuple[str, ...] | None = None
    """Classes of images without any (`labelled: false`): how many, names, or a set of ImageNet's as timm calls it
    (`imagenet-1k`). null: the teacher's, with names where its weights bring them; `labels` gives others."""
    root: str | None = None
    """Folder that a prefixed dataset is read from, or that a manifest's paths are inside (null: the manifest's own);
    not used for digits and folders."""
    columns: ColumnsConfig = ColumnsConfig()
    label_separator: str | None = Field(None, min_length=1)
    """What is between the classes in a manifest's label, where an image has several; null: `|` or `;`."""
    train_split: str | None = None
    """Name of the training split of a prefixed dataset, or in a split column; null: `train`. A folder's splits are its
    train/ and val/."""
    val_split: str | None = None
    """Name of the held-out split, likewise; null: `validation`. A split column's may also be val or, without one of
    these, test."""
    train_samples: int | None = Field(None, gt=0)
    """Images in the training split of a streamed dataset (wds, tfds) that does not say so itself."""
    val_samples: int | None = Field(None, gt=0)
    """Images in its held-out split."""
    labels: str | None = None
    """Text file with one class name a line, for a prefixed dataset that carries no names, or to fix the classes of a
    manifest and their order; labels that are none of the names are then refused, or count the lines from 0."""
    cache: str | None = None
    """Folder on this machine that WebDataset shards behind a URL are copied to, once; they are then read at any place,
    as shards of this machine are. null: they are streamed, and fetched again for every pass. Other images behind a URL
    are kept there when they are first read; one that is replaced there is read anew."""
    val_fraction: float = Field(0.2, gt=0, lt=1)
    """Share held out of each class when the source has no held-out split of its own."""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """How often training draws an image. balanced: every class equally often, so an image by 1/images of its class
    (the mean over its classes, where it has several), times its weight where a column gives one."""
    split_seed: int = 0
    """Seed of that split; apart from `seed`, so that runs with different seeds are judged on the same images."""
    check: Literal["auto", "full", "header", "skip"] = "auto"
    """Open images before training: decode all of them, read headers only, or not at all. auto: full up to 50,000."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What becomes of images that check finds damaged, too large or without a scale: the run ends and names them, or
    they are left out of both splits and listed in data/bad_images.txt (auto then checks fully, however many)."""
    on_duplicates: Literal["warn", "error", "drop", "allow"] = "warn"
    """What becomes of held-out files that are in training too, byte for byte: a warning, the end of the run, the
    training files are left out, or nobody looks. Of files alone; a prefixed source is not compared."""
    crop_pct: float | None = Field(None, gt=0, le=1)
    """Share of the resized image kept by evaluation's centre crop; null: the model's own."""
    channels: int = Field(3, ge=1, le=64)
    """Channels of an image, and of the input of both networks (timm's `in_chans`). 3: RGB; 1: grey, made of any image.
    Others are read from files that have just these: .npy `[H, W, C]`, TIFF of a page a channel, pictures with alpha."""
    bits: Bits = 8
    """Bits of a channel. 8: deeper ones are scaled down. 16: kept, of .npy (uint16) and of 16-bit grey PNG and TIFF."""
    mean: tuple[float, ...] | None = None
    """What both networks subtract from each channel, scaled to [0, 1]; null: what each was trained with (its average
    for grey), and for 16 bits or other channels that of the training images."""
    std: tuple[float, ...] | None = None
    """What they divide by afterwards; given with `mean`, or not at all."""
    augment: AugmentConfig = AugmentConfig()

    @property
    def pixel(self) -> Channels:
        """Return what a pixel consists of."""
        return Channels(self.channels, self.bits)

    @property
    def splits(self) -> tuple[str, str]:
        """Return names of the training and of the held-out split of a prefixed dataset."""
        return self.train_split or "train", self.val_split or "validation"
