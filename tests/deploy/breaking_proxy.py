"""A TCP proxy that breaks connections: the first as the first fault says, the second as the second, and none when no fault is left."""

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

CHUNK_BYTES = 4096
# Closing sends a reset at once, as a machine that has lost its connection would get one.
RESET = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@dataclass(frozen=True)
class Fault:
    """Breaks a connection after so many bytes to the service, or in place of the byte after so many from it."""

    bytes_up: int | None = None
    bytes_down: int | None = None


@dataclass
class Proxy:
    """`heads`: what each connection began with. `broken`: how many faults there have been."""

    target: tuple[str, int]
    faults: list[Fault]
    port: int = 0
    broken: int = 0
    heads: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, listener: socket.socket) -> None:
        with suppress(OSError):  # closed: the test is over
            while True:
                client, _ = listener.accept()
                fault = self.faults.pop(0) if self.faults else Fault()
                threading.Thread(target=self._connect, args=(client, fault), daemon=True).start()

    def _connect(self, client: socket.socket, fault: Fault) -> None:
        with client, socket.create_connection(self.target) as service:
            number = len(self.heads)
            self.heads.append(b"")

            def note(chunk: bytes) -> None:
                if len(self.heads[number]) < CHUNK_BYTES:
                    self.heads[number] += chunk

            up = threading.Thread(target=self._pump, args=(client, service, fault.bytes_up, note), daemon=True)
            up.start()
            self._pump(service, client, fault.bytes_down)
            up.join()

    def _pump(self, source: socket.socket, sink: socket.socket, most: int | None, note=lambda _: None) -> None:
        passed = 0
        with suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                note(chunk)
                passed += len(chunk)
                if most is not None and passed > most:
                    self.broken += 1
                    for end in (source, sink):
                        end.setsockopt(*RESET)
                    break
                sink.sendall(chunk)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def breaking(url: str, faults: Sequence[Fault] = ()) -> Iterator[Proxy]:
    """A proxy before the service at `url`."""
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy((host, int(port)), list(faults), listener.getsockname()[1])
        threading.Thread(target=proxy.serve, args=(listener,), daemon=True).start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
