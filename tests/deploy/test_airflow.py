"""deploy/pipelines/airflow_dag.py in a real Airflow, in an environment of its own that is made here: minutes, and half a gigabyte."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.digits_model import digits_model
from tests.acceptance.served import served, to_environment
from tests.deploy.test_pipelines import KEY, MISSED, PIPELINES, QUICK, check_downloads, job_ids

# Beside Bayespress it would pull versions of its own.
AIRFLOW = ("apache-airflow-core>=3.2,<4", "apache-airflow-providers-standard>=1.10,<2")


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an Airflow; BAYESPRESS_TEST_AIRFLOW may name one that is there already."""
    if "BAYESPRESS_TEST_AIRFLOW" in os.environ:
        return Path(os.environ["BAYESPRESS_TEST_AIRFLOW"])
    environment = tmp_path_factory.mktemp("airflow") / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", *AIRFLOW], check=True)
    return environment / "bin" / "airflow"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_dag_of_operators_and_a_sensor_drives_a_job_to_its_end_and_fails_where_a_gate_is_missed(airflow: Path, tmp_path: Path) -> None:
    dags, model, out = tmp_path / "dags", tmp_path / "model.onnx", tmp_path / "small"
    dags.mkdir()
    for name in ("airflow_dag.py", "poll.py"):
        shutil.copy(PIPELINES / name, dags)
    model.write_bytes(digits_model())
    with served(tmp_path / "home", variables={"BAYESPRESS_ADMIN_KEY": KEY}) as service:
        environment = to_environment(
            {
                "AIRFLOW_HOME": str(tmp_path / "airflow"),
                "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "BAYESPRESS_URL": str(service.client.base_url),
                "BAYESPRESS_API_KEY": KEY,
            }
        )

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run([airflow, *arguments], env=environment, capture_output=True, text=True, check=False)

        def run_dag(config: dict[str, object]) -> str:
            parameters = {"model": str(model), "rows": "builtin:digits", "out": str(out), "config": json.dumps(config)}
            done = run("dags", "test", "bayespress", "--conf", json.dumps(parameters))
            return done.stdout + done.stderr

        assert run("db", "migrate").returncode == 0
        log = run_dag(QUICK)
        (job_id,) = job_ids(service)
        assert "state=success" in log, log[-3000:]
        check_downloads(service, job_id, out)

        shutil.rmtree(out)
        log = run_dag(MISSED)
        assert "is failed_gate" in log
        assert "state=failed" in log, log[-3000:]
        assert len(job_ids(service)) == 2
        assert not out.exists()
