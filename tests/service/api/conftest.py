"""One live service per module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.api.live import LiveService, service_settings, serving


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data-root").resolve()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Iterator[LiveService]:
    with serving(service_settings(tmp_path_factory.mktemp("home"), (data_root,))) as live:
        yield live
