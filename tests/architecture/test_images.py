"""Rules of the Dockerfile that can be checked without Docker."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
STAGE = re.compile(r"FROM (\S+) AS (\S+)")


def stages() -> dict[str, list[str]]:
    """Instructions by stage, those of the stages it stands on first."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in LINES:
        if match := STAGE.fullmatch(line):
            current = found[match[2]] = list(found.get(match[1], []))
        elif line and not line.startswith("#"):
            current.append(line)
    return found


def test_base_image_has_a_pinned_tag() -> None:
    arguments = [line for line in LINES if line.startswith("ARG PYTHON_IMAGE=")]
    assert len(arguments) == 1
    assert re.fullmatch(r"ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-[a-z]+", arguments[0])
    outside = {match[1] for line in LINES if (match := STAGE.fullmatch(line))} - {"${PYTHON_IMAGE}", *stages()}
    assert outside == set()


@pytest.mark.parametrize("target", ["api", "worker"])
def test_target_runs_under_tini_and_not_as_root(target: str) -> None:
    instructions = stages()[target]
    users = [line for line in instructions if line.startswith("USER ")]
    assert users == ["USER bayespress"]
    assert 'ENTRYPOINT ["tini", "--"]' in instructions
    assert any(line.startswith("HEALTHCHECK ") and "/livez" in line for line in instructions)


def test_every_installation_from_an_index_is_constrained() -> None:
    installs = [command for line in LINES for command in line.split("&&") if "pip install" in command]
    assert installs
    assert [command for command in installs if "-c /constraints.txt" not in command and "/constraints.txt)" not in command] == []


def test_api_has_no_torch() -> None:
    assert "COPY --from=api-environment /opt/bayespress /opt/bayespress" in stages()["api"]
    assert [line for line in stages()["api-environment"] if "torch" in line.lower() or "[worker" in line] == []


def test_build_context_holds_what_is_copied() -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = {source for line in LINES if line.startswith("COPY ") and "--from" not in line for source in line.split()[1:-1]}
    assert copied
    assert [source for source in sorted(copied) if f"!{source}" not in ignore or not (ROOT / source).exists()] == []
