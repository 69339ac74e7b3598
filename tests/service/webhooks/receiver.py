"""A receiver of webhooks on loopback: real sockets; it notes what comes and answers as it is told."""

import http.server
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    body: bytes
    # How often a message of this id has come, this time included.
    times: int

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass(frozen=True)
class Answer:
    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Iterator[bytes] | bytes = b""


@dataclass
class Receiver:
    port: int = 0
    received: list[Received] = field(default_factory=list)
    # Ids of the messages that were answered with 2xx, once for each time.
    taken: list[str] = field(default_factory=list)
    answer: Callable[[Received], Answer] = lambda _: Answer()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/hook"


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver, times, lock = Receiver(), Counter[str](), threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                times[headers["webhook-id"]] += 1
                received = Received(self.path, headers, body, times[headers["webhook-id"]])
                receiver.received.append(received)
            answer = receiver.answer(received)
            if 200 <= answer.status < 300:
                receiver.taken.append(received.id)
            try:
                self._write(answer)
            except ConnectionError:
                self.close_connection = True

        def _write(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if isinstance(answer.body, bytes):
                if answer.status != 204:
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)
                return
            self.close_connection = True
            self.end_headers()
            for chunk in answer.body:
                self.wfile.write(chunk)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A sender that goes away is no error of ours."""

    with Server(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
