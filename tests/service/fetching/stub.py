"""A stub server on loopback: real sockets, answers by a function, with the freedom to misbehave."""

import http.server
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

Body = bytes | Iterator[bytes]
Answer = tuple[int, Mapping[str, str], Body]


@dataclass(frozen=True)
class Request:
    path: str
    headers: Message


@dataclass
class Stub:
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    server_names: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def answering(answer: Callable[[Request], Answer], tls: ssl.SSLContext | None = None) -> Iterator[Stub]:
    """A server whose every answer is `answer(request)`; a body of chunks goes out as they come, and without a Content-Length unless given.

    Where the function, or its body, raises ConnectionError, the connection is cut.
    """
    stub = Stub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            request = Request(self.path, self.headers)
            stub.requests.append(request)
            self.close_connection = True
            try:
                status, headers, body = answer(request)
                self.send_response(status)
                if isinstance(body, bytes) and "content-length" not in {name.lower() for name in headers}:
                    self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                for chunk in [body] if isinstance(body, bytes) else body:
                    self.wfile.write(chunk)
            except ConnectionError:
                return

        def log_message(self, *_: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            stub.connections += 1
            with (
                suppress(ssl.SSLError, ConnectionError),
                tls.wrap_socket(request, server_side=True) if tls else nullcontext(request) as taken,
            ):
                super().finish_request(taken, client_address)

    if tls:
        tls.sni_callback = lambda _socket, name, _context: stub.server_names.append(name)
    with Server(("127.0.0.1", 0), Handler) as server:
        stub.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()
