"""What tests need from Debian: the list in tests/debian-packages.txt, its installation as root, and skip-or-fail where it is missing.

`python -m tests.debian` (a part of `make test`) installs what is missing; it never fails, the test that needs a package speaks up.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES_FILE = Path(__file__).with_name("debian-packages.txt")


def listed_packages(text: str) -> list[str]:
    """One package a line; '#' starts a comment."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def require_debian(package: str, program: str) -> Path:
    """Path of `program` (a name on PATH, or an absolute path that may contain wildcards) out of the Debian package `package`.

    Where it is missing the test is skipped, naming the package; under CI it fails.
    """
    if package not in listed_packages(PACKAGES_FILE.read_text(encoding="utf-8")):
        raise LookupError(f"{package} does not stand in {PACKAGES_FILE.name}")
    found = find_program(program)
    if found is not None:
        return found
    message = f"needs the Debian package {package} ({program} not found); as root, make test installs it"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def find_program(program: str) -> Path | None:
    if program.startswith("/"):
        return max(Path("/").glob(program[1:]), default=None)
    on_path = shutil.which(program)
    return Path(on_path) if on_path else None


def is_installed(package: str) -> bool:
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"


def install_missing() -> None:
    missing = [package for package in listed_packages(PACKAGES_FILE.read_text(encoding="utf-8")) if not is_installed(package)]
    if not missing:
        return
    if os.geteuid() != 0:
        print(f"not root, so not installed: {' '.join(missing)}; the tests that need them will say so")
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-qq", "--yes", "--no-install-recommends", *missing]):
        print(*command, flush=True)
        if subprocess.run(command, env=environment, check=False, stdin=subprocess.DEVNULL).returncode != 0:
            print(f"could not install: {' '.join(missing)}; the tests that need them will say so")
            return


if __name__ == "__main__":
    if shutil.which("dpkg-query") and shutil.which("apt-get"):
        install_missing()
    else:
        print(f"no Debian: {PACKAGES_FILE.name} is left to you")
    sys.exit(0)
