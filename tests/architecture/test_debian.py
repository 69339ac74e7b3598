"""Where a Debian package is missing: a skip that names it, under CI a failure."""

from pathlib import Path

import pytest

from tests.debian import PACKAGES_FILE, listed_packages, require_debian

LISTED = listed_packages(PACKAGES_FILE.read_text(encoding="utf-8"))[0]


def test_finds_a_program_on_path_and_by_pattern() -> None:
    assert require_debian(LISTED, "sh").name == "sh"
    assert require_debian(LISTED, "/bin/[s]h") == Path("/bin/sh")


def test_missing_program_skips_and_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=LISTED):
        require_debian(LISTED, "no-such-program")


def test_missing_program_fails_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=LISTED):
        require_debian(LISTED, "no-such-program")


def test_unlisted_package_is_a_mistake_of_the_test() -> None:
    with pytest.raises(LookupError):
        require_debian("not-in-the-list", "sh")
