"""What is handed out beside the code: licence, notices, changelog, pins."""

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from compressor import __version__
from tests.debian import PACKAGES_FILE, listed_packages

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PIN = re.compile(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*")


def requirements(*extras: str) -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    found = [Requirement(line) for line in lines]
    own = [requirement for requirement in found if requirement.name == PROJECT["name"]]
    rest = [requirement for requirement in found if requirement.name != PROJECT["name"]]
    return rest + [nested for requirement in own for nested in requirements(*requirement.extras)]


def closure(roots: list[Requirement]) -> set[str]:
    """Names of all distributions that `roots` bring into this environment, their own dependencies included."""
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(root.name), extra) for root in roots for extra in ("", *root.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for line in distribution(name).requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), nested) for nested in ("", *needed.extras)]
    return {str(name) for name, _ in seen}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    named = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in named if not PIN.fullmatch(line)] == [], "a pin is name==version, without a local version"
    return {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in named}


def without_cuda(names: set[str]) -> set[str]:
    """The CUDA build of torch brings NVIDIA's packages and triton, and pins them itself."""
    return {name for name in names if not name.startswith(("nvidia-", "cuda-")) and name != "triton"}


def test_everything_that_is_installed_is_pinned() -> None:
    brought = without_cuda(closure(requirements("dev")))
    assert brought <= set(pins()), brought - set(pins())


def test_pins_are_inside_the_ranges() -> None:
    pinned = pins()
    needs = requirements("dev", "zoo")
    outside = [str(needed) for needed in needs if not needed.specifier.contains(pinned[canonicalize_name(needed.name)])]
    assert outside == []


def test_the_exporters_of_the_zoo_come_only_with_their_extra() -> None:
    assert not {"transformers", "skl2onnx"} & closure(requirements("dev"))  # timm is an extra of the product, which the tests need


def test_notices_name_every_package_that_users_run() -> None:
    notices = (ROOT / "THIRD_PARTY_NOTICES").read_text(encoding="utf-8")
    named = set(re.findall(r"^  ([a-z0-9-]+) {2,}\S.*https?://", notices, re.MULTILINE))
    brought = {
        name
        for name in closure(requirements("worker", "postgres", "timm", "openvino"))
        if not name.startswith(("nvidia-", "cuda-")) and name != "triton"
    }
    assert brought <= named, brought - named


def test_licence_is_the_whole_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["license"] == "Apache-2.0"


def test_changelog_opens_with_this_version() -> None:
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == __version__


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / ".github" / "decisions").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", []), ("# none\n", []), ("postgresql  # a server\n\ncurl\n", ["postgresql", "curl"])],
)
def test_list_of_debian_packages_reads(text: str, expected: list[str]) -> None:
    assert listed_packages(text) == expected


def test_listed_debian_packages_are_names() -> None:
    packages = listed_packages(PACKAGES_FILE.read_text(encoding="utf-8"))
    assert [package for package in packages if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", package)] == []
