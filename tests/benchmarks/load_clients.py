"""The clients of tests.benchmarks.load, a process of each kind: plain sockets, so that two cores carry the service and not its clients.

`python -m tests.benchmarks.load_clients poll|idle|follow|upload PORT JOB COUNT` runs until its stdin closes (`poll`, `idle`), the job has
ended (`follow`) or everything is sent (`upload`), and prints one JSON object: seconds of each request, and what went wrong.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

from tests.service.api.sample_files import MODEL

POLL_EVERY_S = 1.0
UPLOAD_BYTES = 200_000_000
BLOCK = bytes(1_000_000)
BOUNDARY = "load"


@dataclass
class Seen:
    """`seconds`: of each request that went well; `events`: read from all streams together."""

    seconds: list[float] = field(default_factory=list)
    events: int = 0
    errors: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Target:
    port: int
    job_id: str

    def request(self, method: str, path: str, *headers: str) -> bytes:
        return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *headers, "\r\n"]).encode()


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers of a response."""
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    return int(status.split()[1]), headers


async def poll(target: Target, seen: Seen, stop: asyncio.Event, offset_s: float, every_s: float = POLL_EVERY_S) -> None:
    """Asks for the job over one connection, at its own moments of every second."""
    await asyncio.sleep(offset_s)
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    request = target.request("GET", f"/v1/jobs/{target.job_id}")
    while not stop.is_set():
        started = time.perf_counter()
        writer.write(request)
        status, headers = await read_head(reader)
        json.loads(await reader.readexactly(int(headers["content-length"])))
        taken = time.perf_counter() - started
        if status == 200:
            seen.seconds.append(taken)
        else:
            seen.errors[f"status {status}"] += 1
        await asyncio.sleep(max(0.0, every_s - taken))
    writer.close()


async def follow(target: Target, seen: Seen) -> None:
    """Reads the job's events to the end; each must follow the one before."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    writer.write(target.request("GET", f"/v1/jobs/{target.job_id}/events", "Accept: text/event-stream"))
    status, _ = await read_head(reader)
    if status != 200:
        raise RuntimeError(f"status {status}")
    last = 0
    while line := (await reader.readline()).decode():
        if line.startswith("id: "):
            if int(line[4:]) != last + 1:
                raise RuntimeError("an event is missing")
            last += 1
            seen.events += 1
        if line.startswith("event: end"):
            writer.close()
            return
    raise RuntimeError("the stream broke off")


async def upload(target: Target, seen: Seen) -> None:
    """A small model, and so many bytes that are framed as a parquet file."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    head = "".join(_part(name) for name in ("model",)).encode() + MODEL + _part("dataset", first=False).encode() + b"PAR1"
    tail = f"PAR1\r\n--{BOUNDARY}--\r\n".encode()
    length = len(head) + UPLOAD_BYTES + len(tail)
    started = time.perf_counter()
    writer.write(
        target.request("POST", "/v1/jobs", f"Content-Type: multipart/form-data; boundary={BOUNDARY}", f"Content-Length: {length}") + head
    )
    for _ in range(UPLOAD_BYTES // len(BLOCK)):
        writer.write(BLOCK)
        await writer.drain()
    writer.write(tail)
    status, _ = await read_head(reader)
    writer.close()
    if status != 202:
        raise RuntimeError(f"status {status}")
    seen.seconds.append(time.perf_counter() - started)


def _part(name: str, *, first: bool = True) -> str:
    start = "" if first else "\r\n"
    return f'{start}--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="file"\r\n\r\n'


async def run(kind: str, target: Target, count: int) -> Seen:
    seen, stop = Seen(), asyncio.Event()
    if kind == "poll":
        clients = [poll(target, seen, stop, POLL_EVERY_S * number / count) for number in range(count)]
        asyncio.get_running_loop().run_in_executor(None, _wait_for_end_of_input, asyncio.get_running_loop(), stop)
    elif kind == "idle":
        clients = [poll(target, seen, stop, 0.0, POLL_EVERY_S / count)]
        asyncio.get_running_loop().run_in_executor(None, _wait_for_end_of_input, asyncio.get_running_loop(), stop)
    else:
        clients = [{"follow": follow, "upload": upload}[kind](target, seen) for _ in range(count)]
    for result in await asyncio.gather(*clients, return_exceptions=True):
        if isinstance(result, BaseException):
            seen.errors[repr(result)] += 1
    return seen


def _wait_for_end_of_input(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    sys.stdin.read()
    loop.call_soon_threadsafe(stop.set)


if __name__ == "__main__":
    kind, port, job_id, count = sys.argv[1:]
    print(json.dumps(asdict(asyncio.run(run(kind, Target(int(port), job_id), int(count))))))
