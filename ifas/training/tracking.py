"""Experiment tracking: the curve file always; an MLflow server, too, where `train.mlflow` names one.

A server that is down, slow or full never stops a training. One note reports the first failure; the curve file has all
values.
"""

from __future__ import annotations

import os
import time
from typing import Any, Protocol

from ifas.core.errors import ConfigError
from ifas.core.progress import emit
from ifas.training.job import Job
from ifas.training.step import StepLosses

EXPERIMENT = "ifas"
#: Seconds between two calls of the server, and how long a call may take.
EVERY, TIMEOUT = 5.0, 10
#: Longest value of a parameter that the server takes.
LONGEST = 500


class Sink(Protocol):
    """Where losses go besides the curve file."""

    def add(self, step: int, losses: StepLosses) -> None:
        """The losses of a step (1-based)."""
        ...

    def close(self) -> None:
        """Training has ended."""
        ...


def sink(job: Job) -> Sink | None:
    """The sink that the configuration names, if any.

    Raises:
        ConfigError: the package of the client is missing.
    """
    return MlflowSink(job) if job.train.mlflow else None


class MlflowSink:
    """An MLflow run named like ours. A run that resumes goes on in it.

    Args:
        job: of the training; its settings become parameters.
    """

    def __init__(self, job: Job) -> None:
        # One try, with a time limit: a training must not wait for its log.
        for name, value in (
            ("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT),
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", 1),
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ):
            os.environ.setdefault(name, str(value))
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric
        except ImportError as error:
            raise ConfigError(
                "train.mlflow is set, but its client is not installed", "pip install mlflow-skinny"
            ) from (error)
        self._metric = Metric
        self._client: Any = MlflowClient(tracking_uri=job.train.mlflow)
        self._waiting: list[Any] = []
        self._last = 0.0
        self._missed = False
        self._run = ""
        self._tried(lambda: self._begin(job))

    def add(self, step: int, losses: StepLosses) -> None:
        """See `Sink`."""
        if not self._run or losses.skipped:
            return
        values = {"loss": losses.loss, "judgment": losses.judgment, "interpretation": losses.interpretation}
        for name, (judgment, interpretation) in losses.by_species.items():
            values |= {f"judgment.{name}": judgment, f"interpretation.{name}": interpretation}
        stamp = int(time.time() * 1000)
        self._waiting += [self._metric(name, value, stamp, step) for name, value in values.items()]
        if time.monotonic() - self._last > EVERY:
            self._send()

    def close(self) -> None:
        """See `Sink`."""
        self._send()
        if self._run:
            self._tried(lambda: self._client.set_terminated(self._run))

    def _begin(self, job: Job) -> None:
        client, name = self._client, job.run.name
        experiment = client.get_experiment_by_name(EXPERIMENT)
        number = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
        found = client.search_runs([number], filter_string=f"tags.`ifas.run` = '{name}'", max_results=1)
        if found:
            self._run = found[0].info.run_id
            client.update_run(self._run, status="RUNNING")
            return
        made = client.create_run(number, run_name=name, tags={"ifas.run": name})
        for key, value in _flat(
            {"model": job.model.model_dump(mode="json"), "train": job.train.model_dump(mode="json")}
        ):
            client.log_param(made.info.run_id, key, str(value)[:LONGEST])
        self._run = made.info.run_id

    def _send(self) -> None:
        self._last = time.monotonic()
        # The server takes a thousand at once.
        while self._run and self._waiting:
            some, self._waiting = self._waiting[:1000], self._waiting[1000:]
            self._tried(lambda some=some: self._client.log_batch(self._run, metrics=some))

    def _tried(self, call: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            call()
        except (MlflowException, OSError) as error:
            if not self._missed:
                first = str(error).strip().splitlines()[0][:200]
                emit("note", "train", text=f"MLflow misses some of this training: {first}")
            self._missed = True


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in tree.items():
        flat += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return flat
