"""An S3 server of our own for tests: moto's, as a process on a free port of loopback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

_SERVE = "import sys; from moto.moto_server.threaded_moto_server import ThreadedMotoServer as S; s = S('127.0.0.1', 0, verbose=False); s.start(); print(s.get_host_and_port()[1], flush=True); sys.stdin.read(); s.stop()"  # noqa: E501
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@contextmanager
def moto_server() -> Iterator[str]:
    """URL of a server without buckets. It ends with us."""
    command = [sys.executable, "-W", "ignore", "-c", _SERVE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | CREDENTIALS) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            process.wait(10)


def put_object(server: str, bucket: str, key: str, data: bytes) -> None:
    """With its bucket."""
    authorization = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}
    for path, content in ((bucket, b""), (f"{bucket}/{key}", data)):
        httpx.put(f"{server}/{path}", content=content, headers=authorization, trust_env=False).raise_for_status()
