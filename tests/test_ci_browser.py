"""`.ci/browser`: Chromium is installed where that is possible and asked for, and otherwise the reason is said."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / ".ci" / "browser"
BASH = shutil.which("bash") or ""
pytestmark = pytest.mark.skipif(not BASH, reason="bash is not installed")
APT = """#!/bin/sh
# A package manager that makes a browser and its driver, or fails.
echo "apt-get $*" >> "$LOG"
[ -z "$APT_FAILS" ] || exit 100
[ "$1" = install ] || exit 0
for name in chromium chromedriver; do
    printf '#!/bin/sh\\nexit %s\\n' "${STUB:-0}" > "$BIN/$name"
    chmod +x "$BIN/$name"
done
"""


class Machine:
    """A machine whose every command is in one folder."""

    def __init__(self, folder: Path, user: int) -> None:
        self.bin, self.log = folder / "bin", folder / "log"
        self.bin.mkdir()
        self.log.touch()
        for name in ("sh", "timeout", "chmod"):
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self.add("id", f"#!/bin/sh\necho {user}\n")

    def add(self, name: str, program: str) -> None:
        (self.bin / name).write_text(program)
        (self.bin / name).chmod(0o755)

    def run(self, **environment: str) -> tuple[int, str]:
        """Exit code and what was said."""
        variables = {"PATH": str(self.bin), "BIN": str(self.bin), "LOG": str(self.log), **environment}
        done = subprocess.run([BASH, str(SCRIPT)], env=variables, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout


@pytest.fixture
def root(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path, user=0)
    machine.add("apt-get", APT)
    return machine


def test_a_browser_that_is_there_is_left_alone(root: Machine) -> None:
    for name in ("chromium", "chromedriver"):
        root.add(name, "#!/bin/sh\nexit 0\n")
    assert root.run(CI="true") == (0, "")
    assert root.log.read_text() == ""


def test_nothing_is_installed_outside_ci(root: Machine) -> None:
    code, said = root.run()
    assert code == 1
    assert "make browser" in said
    assert root.log.read_text() == ""


def test_ci_installs_both(root: Machine) -> None:
    assert root.run(CI="true") == (0, "")
    assert "chromium chromium-driver" in root.log.read_text().splitlines()[-1]


@pytest.mark.parametrize(
    "trouble", [{"APT_FAILS": "1"}, {"STUB": "1"}], ids=["no packages", "a package that is a stub"]
)
def test_a_failed_installation_is_told(root: Machine, trouble: dict[str, str]) -> None:
    code, said = root.run(CI="true", **trouble)
    assert code == 1
    assert "could not be installed" in said


def test_without_root_it_says_so(tmp_path: Path) -> None:
    code, said = Machine(tmp_path, user=1000).run(CI="true")
    assert code == 1
    assert "needs root and apt-get" in said
