"""Airflow 3: a task that creates a job, a sensor that waits for it without holding a worker, and a task that downloads what it made.

Put this file and poll.py into the folder of DAGs; httpx, which poll.py needs, comes with Airflow. The workers read BAYESPRESS_URL and,
where the service asks for a key, BAYESPRESS_API_KEY. Try it:

    airflow dags test bayespress --conf '{"model": "/data/model.onnx", "rows": "/data/train.parquet", "out": "/data/small"}'
"""

import uuid
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, Context, PokeReturnValue
from airflow.sdk.exceptions import AirflowFailException
from poll import connect, create_job, download, get_job


class CreateJob(BaseOperator):
    """Sends model and rows; its result is the id of the job. A try after one that broke finds the job of that one."""

    template_fields = ("model", "rows", "config")

    def __init__(self, *, model: str, rows: str, config: str = "{}", **options: Any) -> None:
        super().__init__(**options)
        self.model, self.rows, self.config = model, rows, config

    def execute(self, context: Context) -> str:
        # The same for every try of this task in this run of the DAG, and for nothing else.
        task = context["ti"]
        key = uuid.uuid5(uuid.NAMESPACE_OID, f"{task.dag_id} {task.run_id} {task.task_id} {task.map_index}")
        with connect() as client:
            job = create_job(client, Path(self.model), self.rows, self.config, str(key))
        self.log.info("%s %s", job["id"], job["links"]["self"])
        return str(job["id"])


class JobFinished(BaseSensorOperator):
    """Waits until the job has finished; its result is the job. Fails, without another try, where the job has failed or missed a gate."""

    template_fields = ("job_id",)

    def __init__(self, *, job_id: Any, **options: Any) -> None:
        super().__init__(**options)
        self.job_id = job_id

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002
        with connect() as client:
            job = get_job(client, self.job_id)
        self.log.info("%s, phase %s, %.0f %%, eta_s %s", job["status"], job["phase"], 100 * job["progress"], job["eta_s"])
        if job["finished_at"] and job["status"] != "succeeded":
            raise AirflowFailException(f"{self.job_id} is {job['status']}: {job['error'] or job['verdict']}")
        return PokeReturnValue(job["finished_at"] is not None, job)


class DownloadArtifacts(BaseOperator):
    template_fields = ("job_id", "out")

    def __init__(self, *, job_id: Any, out: str, **options: Any) -> None:
        super().__init__(**options)
        self.job_id, self.out = job_id, out

    def execute(self, context: Context) -> str:  # noqa: ARG002
        with connect() as client:
            download(client, self.job_id, Path(self.out))
        return self.out


with DAG("bayespress", schedule=None, params={"model": "model.onnx", "rows": "train.parquet", "out": "small", "config": "{}"}):
    create = CreateJob(task_id="create", retries=3, model="{{ params.model }}", rows="{{ params.rows }}", config="{{ params.config }}")
    wait = JobFinished(task_id="wait", job_id=create.output, mode="reschedule", poke_interval=15, timeout=24 * 3600)
    fetch = DownloadArtifacts(task_id="download", retries=3, job_id=create.output, out="{{ params.out }}")
    create >> wait >> fetch
