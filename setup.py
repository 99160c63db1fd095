"""The packages of a build: pyproject.toml has all else.

Its own search finds them through the links of vitcompress/, which a source distribution cannot hold: the wheel built of
one had three files.
"""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

FOLDERS = ("core", "exporters", "stages", "pipeline")


class BuildPackages(build_py):
    """Builds what is in the folders, whether or not there are links to them."""

    def finalize_options(self) -> None:
        """Name the packages."""
        names = find_packages(include=[pattern for name in FOLDERS for pattern in (name, f"{name}.*")])
        self.distribution.packages = ["vitcompress", *(f"vitcompress.{name}" for name in sorted(names))]
        super().finalize_options()


setup(cmdclass={"build_py": BuildPackages})
