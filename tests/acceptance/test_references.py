"""A real run whose model and rows a real service fetches from a server that it may ask, and one that is sent where it must not go."""

import hashlib
import io
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from tests.acceptance.digits_model import digits_model
from tests.acceptance.served import served
from tests.service.fetching.stub import Answer, Request, answering


def rows() -> bytes:
    pixels, labels = load_digits(return_X_y=True)
    file = io.BytesIO()
    np.savez(file, x=(pixels / 16.0).astype(np.float32), y=labels)
    return file.getvalue()


def test_model_and_rows_are_fetched_and_the_report_says_what_was_used(tmp_path: Path) -> None:
    model, data = digits_model(50), rows()

    def answer(request: Request) -> Answer:
        redirects = {"/latest/model": "/v2/model.onnx?signature=x", "/out": "http://[::ffff:169.254.169.254]/latest/meta-data/"}
        if request.path in redirects:
            return 302, {"Location": redirects[request.path]}, b""
        return 200, {"ETag": '"v2"'}, model if request.path.startswith("/v2/model") else data

    with answering(answer) as stub:
        variables = {"BAYESPRESS_REFERENCE_SCHEMES": "https", "BAYESPRESS_REFERENCE_HOSTS": f"127.0.0.1:{stub.port}"}
        with served(tmp_path / "home", variables=variables) as service:
            digest = hashlib.sha256(model).hexdigest()
            refs = {"model_ref": f"{stub.url}/latest/model#sha256={digest}", "dataset_ref": f"{stub.url}/rows.npz"}
            config = {
                "epochs": 1,
                "second_round_epochs": 0,
                "max_branches": 1,
                "fine_tune_epochs": 1,
                "require_better_than_guessing": False,
            }
            job = service.client.post("/compress", json=refs | {"config": config}).json()
            job = service.client.get(f"{job['links']['self']}?wait=60", timeout=90).json()
            if not job["finished_at"]:
                job = service.client.get(f"{job['links']['self']}?wait=60", timeout=90).json()
            assert job["status"] in {"succeeded", "failed_gate"}, job
            used = {name: (given["bytes"], given["sha256"]) for name, given in job["inputs"].items()}
            assert used == {"model": (len(model), digest), "dataset": (len(data), hashlib.sha256(data).hexdigest())}
            assert service.client.get(job["links"]["report"]).json()["provenance"]["sha256"]["model"] == digest

            lured = service.client.post("/compress", json=refs | {"model_ref": f"{stub.url}/out"}).json()
            lured = service.client.get(f"{lured['links']['self']}?wait=60", timeout=90).json()
            assert (lured["status"], lured["error"]["code"], lured["error"]["param"]) == ("failed", "reference_refused", "model_ref")
            assert "169.254" not in str(lured)
    assert [request.path for request in stub.requests] == ["/latest/model", "/v2/model.onnx?signature=x", "/rows.npz", "/out"]
    assert "signature" not in (tmp_path / "home.log").read_text()
