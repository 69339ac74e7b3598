"""The whole way once: train a small network, send it to a real service over HTTP, run what comes back in plain ONNX Runtime.

`make demo` runs it, and tests/acceptance/test_wheel.py from an installed wheel. Exit 0 only where the promise at the end holds.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow
import pyarrow.parquet
import torch
from sklearn.datasets import load_digits
from torch import nn

# beta: against a thousand rows the default weight of the KL term is heavy; it prunes far beyond what is promised here and costs a point.
CONFIG = {"target_ratio": 40, "beta": 0.1, "seed": 0}
MIN_COMPRESSION_RATIO = 30.0
MAX_EXTRA_ERRORS = 1
JOB_TIMEOUT_S = 240
PARTS = {"train": 1077, "validation": 270, "test": 450}
ENDED = {"succeeded", "failed", "failed_gate", "cancelled"}

Rows = tuple[np.ndarray, np.ndarray]


class DemoError(Exception):
    """Something did not go as promised; the message is for the person at the terminal."""


def main() -> int:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bayespress-demo-") as folder:
        try:
            return run(Path(folder))
        except DemoError as error:
            print(f"demo failed: {error}", file=sys.stderr)
            return 1


def run(folder: Path) -> int:
    parts = split_digits()
    print(f"1. Train a dense network, 64-300-100-10, on {len(parts['train'][1])} of scikit-learn's digits and export it to ONNX")
    dense = folder / "dense.onnx"
    export(train_dense(*parts["train"]), dense)
    files = {"model": dense}
    for name, rows in parts.items():
        files["dataset" if name == "train" else name] = write_parquet(folder / f"{name}.parquet", *rows)

    with running_service(folder) as port:
        print(f"2. The service listens on http://127.0.0.1:{port}; POST /compress with config {json.dumps(CONFIG)}")
        job = follow(port, submit(port, files)["id"])
        if job["status"] != "succeeded":
            raise DemoError(f"the job ended {job['status']}: {json.dumps(job.get('error'))}")
        compressed = folder / "model.onnx"
        compressed.write_bytes(request(port, "GET", f"/v1/jobs/{job['id']}/artifacts/model.onnx"))
        report = json.loads(request(port, "GET", f"/v1/jobs/{job['id']}/report"))
        print("3. Stop the service")

    print("4. Run both files in plain ONNX Runtime on the held-out digits")
    return compare(dense, compressed, report, *parts["test"])


def split_digits() -> dict[str, Rows]:
    digits = load_digits()
    pixels, labels = (digits.data / 16.0).astype(np.float32), digits.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    bounds = np.cumsum(list(PARTS.values()))
    return {name: (pixels[rows], labels[rows]) for name, rows in zip(PARTS, np.split(order, bounds[:-1]), strict=True)}


def train_dense(pixels: np.ndarray, labels: np.ndarray, epochs: int = 40, batch_size: int = 64) -> nn.Module:
    net = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    x, y = torch.from_numpy(pixels), torch.from_numpy(labels)
    for _ in range(epochs):
        for rows in torch.randperm(len(y)).split(batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval()


def export(net: nn.Module, path: Path) -> None:
    # The older exporter needs nothing beside torch; today's default one needs onnxscript. The service takes what either writes.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            net, (torch.zeros(1, 64),), str(path), input_names=["pixels"], dynamic_axes={"pixels": {0: "batch"}}, dynamo=False
        )


def write_parquet(path: Path, pixels: np.ndarray, labels: np.ndarray) -> Path:
    columns = {f"pixel_{index:02d}": column for index, column in enumerate(pixels.T)}
    pyarrow.parquet.write_table(pyarrow.table({**columns, "label": labels}), path)
    return path


@contextmanager
def running_service(folder: Path) -> Iterator[int]:
    """`bayespress serve` on a free port, from the environment of this Python; the value is the port."""
    command = [str(Path(sys.executable).with_name("bayespress")), "serve", "--port", "0", "--home", str(folder / "home")]
    log = folder / "serve.log"
    # Matrices this small gain nothing from a second thread, and lose much where other processes want the same cores.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        service = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield wait_until_ready(service, log)
    except Exception:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        print(*[line for line in lines if "service.requests" not in line][-60:], sep="\n", file=sys.stderr)
        raise
    finally:
        stop(service)


def wait_until_ready(service: subprocess.Popen[bytes], log: Path, timeout_s: float = 60) -> int:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and service.poll() is None:
        match = re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text(encoding="utf-8", errors="replace"))
        if match:
            port = int(match[1])
            try:
                request(port, "GET", "/readyz")
            except (OSError, DemoError):
                pass
            else:
                return port
        time.sleep(0.1)
    raise DemoError(f"the service was not ready after {timeout_s:.0f} s (exit code {service.poll()})")


def stop(service: subprocess.Popen[bytes]) -> None:
    service.send_signal(signal.SIGTERM)
    try:
        service.wait(timeout=30)
    except subprocess.TimeoutExpired:
        service.kill()
        service.wait()
        raise DemoError("the service did not stop within 30 s of SIGTERM") from None


def request(port: int, method: str, path: str, body: bytes | None = None, content_type: str | None = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"Content-Type": content_type} if content_type else {})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status >= 300:
        raise DemoError(f"{method} {path}: {response.status} {content.decode(errors='replace')}")
    return content


def submit(port: int, files: dict[str, Path]) -> dict[str, Any]:
    boundary = uuid.uuid4().hex
    body = b""
    for name, path in files.items():
        disposition = f'form-data; name="{name}"; filename="{path.name}"'
        body += f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
        body += path.read_bytes() + b"\r\n"
    body += f'--{boundary}\r\nContent-Disposition: form-data; name="config"\r\n\r\n{json.dumps(CONFIG)}\r\n--{boundary}--\r\n'.encode()
    job: dict[str, Any] = json.loads(request(port, "POST", "/compress", body, f"multipart/form-data; boundary={boundary}"))
    return job


def follow(port: int, job_id: str) -> dict[str, Any]:
    """Poll the job until it ends; a line for every new phase and every tenth of the way."""
    deadline = time.monotonic() + JOB_TIMEOUT_S
    shown: tuple[object, ...] = ()
    while time.monotonic() < deadline:
        job: dict[str, Any] = json.loads(request(port, "GET", f"/v1/jobs/{job_id}"))
        progress, eta_s = job.get("progress") or 0.0, job.get("eta_s")
        step = (job["status"], job.get("phase"), int(progress * 10))
        if step != shown:
            shown = step
            eta = "" if eta_s is None else f"  {eta_s:3.0f} s to go"
            print(f"   {job['status']:<10} {job.get('phase') or '':<10} {progress:4.0%}{eta}", flush=True)
        if job["status"] in ENDED:
            return job
        time.sleep(0.2)
    raise DemoError(f"the job did not end within {JOB_TIMEOUT_S} s")


def accuracy(model: Path, pixels: np.ndarray, labels: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    scores = session.run(None, {session.get_inputs()[0].name: pixels})[0]
    return float((scores.argmax(axis=1) == labels).mean())


def compare(dense: Path, compressed: Path, report: dict[str, Any], pixels: np.ndarray, labels: np.ndarray) -> int:
    accuracy_dense, accuracy_compressed = accuracy(dense, pixels, labels), accuracy(compressed, pixels, labels)
    weights, latency = report["weights"], report["latency"]
    size_ratio = dense.stat().st_size / compressed.stat().st_size
    rows = [
        (f"accuracy on {len(labels)} held-out digits", f"{accuracy_dense:.4f}", f"{accuracy_compressed:.4f}"),
        ("weights that are not zero", f"{weights['numel']:,}", f"{weights['nnz']:,}"),
        ("bytes of the ONNX file", f"{dense.stat().st_size:,}", f"{compressed.stat().st_size:,}"),
        ("bytes, gzip of the dense file", f"{report['bytes']['dense_gzip']:,}", ""),
        (
            f"latency in ms, batch of {latency['batch_size']}",
            f"{latency['dense']['median_ms']:.3f}",
            f"{latency['delivered']['median_ms']:.3f}",
        ),
    ]
    print(f"\n   {'':<34}{'dense':>12}{'compressed':>12}")
    for name, before, after in rows:
        print(f"   {name:<34}{before:>12}{after:>12}")
    print(f"   {report['verdict']}\n")

    failures = []
    if weights["compression_ratio"] < MIN_COMPRESSION_RATIO:
        failures.append(f"compression_ratio is below {MIN_COMPRESSION_RATIO:g}")
    extra_errors = round((accuracy_dense - accuracy_compressed) * len(labels))
    if extra_errors > MAX_EXTRA_ERRORS:
        failures.append(f"{extra_errors} more digits are misread than before; {MAX_EXTRA_ERRORS} may be")
    if abs(accuracy_compressed - report["metric"]["compressed"]["value"]) > 1e-9:
        failures.append(f"the report says accuracy {report['metric']['compressed']['value']:.4f}")
    print(
        f"demo: accuracy_dense={accuracy_dense:.4f} accuracy_compressed={accuracy_compressed:.4f} "
        f"compression_ratio={weights['compression_ratio']:.1f} size_ratio={size_ratio:.1f} "
        f"job_seconds={report['provenance']['seconds']:.1f}",
        flush=True,
    )
    for failure in failures:
        print(f"demo failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
