"""A package of somebody else's, laid out on the disk as pip would install it."""

from __future__ import annotations

from pathlib import Path


def installed_in(folder: Path, module: str, source: str, points: str) -> Path:
    """Write a package of one module with these entry points; return the file of its entry points."""
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    return info / "entry_points.txt"
