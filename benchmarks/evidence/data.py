"""The images of the studies: letters of Debian's typefaces, Fashion-MNIST and drawings, each in the plan's three parts.

Downloaded (apt-get) and drawn once by the first training that needs them, always the same bytes.

A folder of each: ``train`` and ``val`` (the plan's *choose*), which the product reads, ``test`` apart from them, and
``teacher/train`` with ``teacher/val`` for the teacher: links to ``train`` and to its further images, and to ``val``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import string
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from real_data import NAMES, debian, drawings, fashion

from vitcompress.core.errors import UsageError
from vitcompress.core.images import open_image

SIDE = 40
"""Pixels of an image."""
CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
PACKAGES = (  # noqa: SIM905 - a list of a hundred lines
    "adf-accanthis adf-baskervald adf-berenis adf-gillius adf-ikarius adf-irianis adf-libris adf-mekanus adf-oldania "
    "adf-romande adf-solothurn adf-switzera adf-tribun adf-universalis adf-verana agave allerta anonymous-pro arapey "
    "averia-sans-gwf+averia-serif-gwf b612 beteckna cabin cantarell cardo century-catalogue clear-sans cmu+lmodern "
    "comfortaa comic-neue compagnon courier-prime crosextra-caladea+crosextra-carlito+lato dejavu-core+dejavu-extra "
    "dosis dustin ebgaramond ecolier-court elstob+junicode essays1743 eurofurence fanwood fantasque-sans firacode "
    "freefont-ttf+urw-base35+texgyre+johnsmith-induni georgewilliams gfs-artemisia gfs-didot gfs-neohellenic "
    "gnutypewriter go goudybookletter hack hermit inconsolata inter jetbrains-mono junction jura karla+karmilla "
    "league-mono levien-museum liberation lindenhill linuxlibertine manrope millimetre monofur monoid mononoki "
    "mplus national-park noto-mono+open-sans ocr-b oldstandard opendin opendyslexic osifont oxygen paratype play "
    "prociono quattrocento quicksand radisnoir roadgeek roboto-unhinted+roboto-slab routed-gothic rufscript "
    "sil-andika sil-charis sil-doulos sil-galatia sil-gentium+sil-gentiumplus sora stix tiresias tuffy uralic vollkorn "
    "yanone-kaffeesatz yrsa-rasa"
).split()
"""Debian's ``fonts-*`` with Latin text typefaces; what stands together was drawn after the same typeface."""
PARTS = {"test": 100, "val": 50, "train": 100, "more": 560}
"""Images of a class."""
SHARES = {"test": 0.25, "val": 0.15}
"""Of the groups of typefaces; the others are of *train*, and of its further images."""
FINE = 3
"""How much larger a character is drawn before it is turned and reduced."""
CAP, BASE = 18, 27
"""Height of a capital H, and the line that it stands on, in pixels of the image."""
UNLIKE = "abdeghnqrt"
"""Small letters that differ from their capitals in form, not only in size."""


@dataclass
class Typeface:
    """A file of a font, with the mask of each character at one size and on one line."""

    package: str
    path: Path
    family: str
    masks: dict[str, Image.Image] = field(default_factory=dict)

    def draw(self) -> bool:
        """Draw all characters; whether the font has all of them, each in a form of its own."""
        try:
            rough = ImageFont.truetype(str(self.path), 100, layout_engine=ImageFont.Layout.BASIC)
            _, top, _, bottom = rough.getbbox("H", anchor="ls")
            size = 100 * FINE * CAP / (bottom - top)
            font = ImageFont.truetype(str(self.path), size, layout_engine=ImageFont.Layout.BASIC)
        except (OSError, ZeroDivisionError):
            return False
        if not 0.5 * size < FINE * CAP < 0.95 * size:
            return False
        for character in (*CHARACTERS, "\uffff"):
            self.masks[character] = self._mask(font, character)
        pictures = {mask.tobytes() for mask in self.masks.values()}
        return (
            len(pictures) == len(CHARACTERS) + 1
            and self._two_cases()
            and all(self.masks[one].getbbox() for one in CHARACTERS)
        )

    def _mask(self, font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
        canvas = Image.new("L", (SIDE * FINE, SIDE * FINE))
        left, _, right, _ = font.getbbox(character, anchor="ls")
        at = ((SIDE * FINE - right - left) // 2, BASE * FINE)
        ImageDraw.Draw(canvas).text(at, character, fill=255, font=font, anchor="ls")
        return canvas

    def _two_cases(self) -> bool:
        """Whether small letters are no smaller capitals."""
        unlike = []
        for small in UNLIKE:
            forms = []
            for one in (small, small.upper()):
                mask = self.masks[one]
                forms.append(np.asarray(mask.crop(mask.getbbox()).resize((24, 24)), np.float32) / 255)
            unlike.append(np.abs(forms[0] - forms[1]).mean())
        return float(np.mean(unlike)) > 0.2


def typefaces(folder: Path) -> dict[str, list[Typeface]]:
    """The usable typefaces of each group of packages; those of one family name are of one group."""
    groups: dict[str, list[Typeface]] = {}
    owner: dict[str, str] = {}
    for group in PACKAGES:
        for package in group.split("+"):
            root = debian(f"fonts-{package}", folder)
            for path in sorted((*root.rglob("*.ttf"), *root.rglob("*.otf"), *root.rglob("*.t1"))):
                if path.is_symlink() or any(part in path.name for part in ("Math", "Symbol", "Dingbats", "SC", "Caps")):
                    continue
                try:
                    family = str(ImageFont.truetype(str(path), 20).getname()[0])
                except OSError:
                    continue
                face = Typeface(package, path, family)
                if owner.setdefault(family, group) == group and face.draw():
                    groups.setdefault(group, []).append(face)
    return groups


def split(groups: Sequence[str], seed: int = 0) -> dict[str, list[str]]:
    """The groups of each part, drawn once; *more* has those of *train*."""
    order = np.random.default_rng(seed).permutation(sorted(groups)).tolist()
    found, at = {}, 0
    for part, share in SHARES.items():
        count = round(share * len(order))
        found[part], at = sorted(order[at : at + count]), at + count
    return found | {"train": sorted(order[at:]), "more": sorted(order[at:])}


def picture(mask: Image.Image, random: np.random.Generator) -> Image.Image:
    """A character turned, moved, resized, dark on light with some noise; grey of ``SIDE`` pixels."""
    turn, size = np.deg2rad(random.uniform(-10, 10)), random.uniform(0.85, 1.15)
    middle = SIDE * FINE / 2
    shift = random.uniform(-2, 2, 2) * FINE
    cos, sin = np.cos(turn) / size, np.sin(turn) / size
    x, y = middle + shift
    affine = (cos, sin, middle - cos * x - sin * y, -sin, cos, middle + sin * x - cos * y)
    turned = mask.transform(mask.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR).reduce(FINE)
    ink, paper = random.uniform(0, 110), random.uniform(150, 255)
    share = np.asarray(turned, np.float64) / 255
    grey = paper + (ink - paper) * share + random.normal(0, random.uniform(0, 15), share.shape)
    return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))


def class_name(character: str) -> str:
    """A folder's name, another one for each character where upper and lower case are alike too."""
    kind = "digit" if character.isdigit() else "upper" if character.isupper() else "lower"
    return f"{kind}-{character}"


def letters(folder: Path) -> Path:
    """Draw the letters, once."""
    made = folder / "letters"
    if (made / "families.json").is_file():
        return made
    shutil.rmtree(made, ignore_errors=True)
    groups = typefaces(folder)
    parts = split(list(groups))
    for number, (part, each) in enumerate(PARTS.items()):
        for place, character in enumerate(CHARACTERS):
            target = made / _PLACES[part] / class_name(character)
            target.mkdir(parents=True)
            for index in range(each):
                random = np.random.default_rng((19, number, place, index))
                faces = groups[parts[part][random.integers(len(parts[part]))]]
                face = faces[random.integers(len(faces))]
                picture(face.masks[character], random).save(target / f"{part}-{index:04d}.png")
    _teachers(made, with_more=True)
    told = {
        part: {group: sorted({f"{face.family}: {face.path.name}" for face in groups[group]}) for group in names}
        for part, names in parts.items()
        if part != "more"
    }
    (made / "families.json").write_text(json.dumps(told, indent=1) + "\n")
    return made


_PLACES = {"train": "train", "val": "val", "test": "test", "more": "more"}


def _teachers(made: Path, with_more: bool) -> None:
    """Link what the teacher trains on."""
    for part, sources in (("train", ("train", "more") if with_more else ("train",)), ("val", ("val",))):
        for source in sources:
            for path in sorted((made / source).glob("*/*")):
                link = made / "teacher" / part / path.parent.name / path.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(os.path.relpath(path, link.parent))


def _divided(made: Path, files: Sequence[tuple[str, str, Path]], with_more: bool, smaller: bool = False) -> Path:
    """Link files (part, class, file) into the places of a study, or write them with ``SIDE`` on the shorter side."""
    if not (made / "done").is_file():
        shutil.rmtree(made, ignore_errors=True)
        for part, name, path in files:
            link = made / _PLACES[part] / name / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if smaller:
                image = open_image(path)
                factor = SIDE / min(image.size)
                width, height = (max(SIDE, round(factor * side)) for side in image.size)
                image.resize((width, height), Image.Resampling.LANCZOS).save(link)
            else:
                link.symlink_to(path.resolve())
        _teachers(made, with_more)
        (made / "done").touch()
    return made


def fashion_parts(folder: Path) -> Path:
    """Fashion-MNIST: its first 6,000 images, 5,000 from the 10,000th on, its test images; the others are *more*."""
    whole = fashion(folder, 60_000, 10_000)
    files = []
    for name in NAMES:
        for path in sorted((whole / "train" / name).iterdir()):
            at = int(path.stem)
            files.append(("train" if at < 6_000 else "val" if 10_000 <= at < 15_000 else "more", name, path))
        files += [("test", name, path) for path in sorted((whole / "val" / name).iterdir())]
    return _divided(folder / "fashion", files, with_more=True)


def drawings_parts(folder: Path, each: int = 1000) -> Path:
    """Openclipart's largest folders: of five drawings three are for training, one chooses, one is of the test."""
    whole = drawings(folder, each)
    classes = sorted(path.name for path in (whole / "train").iterdir())
    found: dict[str, list[tuple[str, Path]]] = {}
    for name in classes:
        for path in sorted(whole.glob(f"*/{name}/*"), key=lambda path: path.stem):
            found.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), []).append((name, path))
    # The package has a drawing under several folders, by links: one copy stays, and none where the classes differ.
    single = [copies[0] for copies in found.values() if len({name for name, _ in copies}) == 1]
    files = []
    for name in classes:
        series: dict[str, list[Path]] = {}
        for own, path in single:
            if own == name:
                series.setdefault(_series(path), []).append(path)
        for index, key in enumerate(sorted(series)):
            part = ("train", "train", "train", "val", "test")[index % 5]
            files += [(part, name, path) for path in series[key]]
    return _divided(folder / "drawings", files, with_more=False, smaller=True)


def _series(path: Path) -> str:
    """What the drawings of one series share: the file's name less a number at its end. A series is in one part only."""
    return path.resolve().stem.rstrip("0123456789_-. ")


def imagenet100(folder: Path) -> Path:
    """Every tenth class of ImageNet-1K by its synset: the last 50 training images choose, the published val is *test*.

    Raises:
        UsageError: ``folder`` has no ImageNet as folders of classes.
    """
    whole = folder / "imagenet"
    names = sorted(path.name for path in (whole / "train").glob("n*"))[::10]
    if len(names) != 100 or not all((whole / "val" / name).is_dir() for name in names):
        raise UsageError(
            f"{whole} has no ImageNet-1K: it must have train/ and val/, each with a folder for each of the 1,000 "
            f"synsets (n01440764, ...). Link yours there: ln -s /path/of/imagenet {whole}"
        )
    files = []
    for name in names:
        own = sorted((whole / "train" / name).iterdir())
        files += [("train" if at < len(own) - 50 else "val", name, path) for at, path in enumerate(own)]
        files += [("test", name, path) for path in sorted((whole / "val" / name).iterdir())]
    return _divided(folder / "imagenet100", files, with_more=False)


SETS = {"letters": letters, "fashion": fashion_parts, "drawings": drawings_parts, "imagenet100": imagenet100}
