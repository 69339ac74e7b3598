"""A certificate authority of our own, and a server with a certificate for model.test and 127.0.0.1."""

import ssl
from collections.abc import Iterator

import pytest
import trustme

from tests.service.fetching.stub import Stub, answering


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("model.test", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def tls_stub(server_tls: ssl.SSLContext) -> Iterator[Stub]:
    with answering(lambda _request: (200, {}, b"over TLS"), server_tls) as stub:
        yield stub
