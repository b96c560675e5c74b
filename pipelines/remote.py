"""The DAG on a cluster: compiled to IR, sent to a KFP endpoint, and its runs there."""

import contextlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from ifas_pipelines.release.pipeline import release
from ifas_pipelines.retrain.pipeline import retrain
from kfp import Client, compiler
from kfp_server_api import ApiClient, Configuration, HealthzServiceApi

from ifas.core.config import ClusterConfig, RunConfig
from ifas.core.errors import ConfigError, IfasError
from ifas.core.outputs import producing
from ifas.launch.pods import image_of

#: Name of a pipeline -> what makes it for a cluster.
PIPELINES = {"retrain": retrain, "release": release}
#: KFP's number of "equals" in a filter.
EQUALS = 1
#: Seconds for a connection and for each read. Neither kfp nor its API's client has a limit of its own.
TIMEOUT = (10, 60)


def compile_to(out: Path, config: RunConfig | None = None, pipeline: str = "retrain") -> None:
    """Writes the IR of a pipeline (and its platform document) to a YAML file, whole or not at all.

    Args:
        config: whose `cluster` says what the steps get. A run with another configuration gets the same.

    Raises:
        ConfigError: `out` is a folder, or not named *.yaml, as KFP requires.
        DataError: there is a file that ifas did not make, or the place can't be written.
    """
    if out.suffix not in (".yaml", ".yml") or out.is_dir():
        raise ConfigError(f"{out} can't hold a compiled pipeline", "name a .yaml file")
    cluster = (config or RunConfig()).cluster
    with producing(out) as beside:
        with_image = cluster.model_copy(update={"image": image_of(cluster)})
        beside.write_text(_compiled(pipeline, with_image.model_dump_json()), encoding="utf-8")


@cache
def _compiled(pipeline: str, cluster: str) -> str:
    """IR of a pipeline for a cluster's configuration as JSON. Made once in a process: kfp looks at the whole stack for
    each setting of a task, which takes seconds where many modules are loaded."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pipeline.yaml")
        compiler.Compiler().compile(PIPELINES[pipeline](ClusterConfig.model_validate_json(cluster)), str(file))
        return file.read_text(encoding="utf-8")


class _Client(Client):
    """Has timeouts. It does not ask for KFP's health while it is made, without one: it is told.

    Args:
        health: what KFP said.
    """

    def __init__(self, health: Any, **named: Any) -> None:
        self._health = health
        super().__init__(**named)
        _patient(self.runs.run_service_get_run.__self__.api_client)

    def get_kfp_healthz(self, *_seconds: int) -> Any:
        """What KFP said."""
        return self._health


def _patient(api: ApiClient) -> ApiClient:
    """The client, with a timeout for every request."""
    ask = api.rest_client.request

    def request(*args: Any, _request_timeout: Any = None, **named: Any) -> Any:
        return ask(*args, _request_timeout=_request_timeout or TIMEOUT, **named)

    api.rest_client.request = request
    return api


def token() -> str | None:
    """KFP's token: KFP_TOKEN, or what the file KFP_TOKEN_FILE holds now."""
    file = os.environ.get("KFP_TOKEN_FILE")
    return os.environ.get("KFP_TOKEN") or (Path(file).read_text(encoding="utf-8").strip() if file else None)


class Kfp:
    """A KFP endpoint. A token comes by KFP_TOKEN, or by a file that KFP_TOKEN_FILE names.

    Args:
        namespace: of a KFP that serves several users; by default that of the configuration. Any other KFP has none.

    Raises:
        ConnectionError: the endpoint can't be reached or refuses; its message names the endpoint.
    """

    def __init__(self, endpoint: str, namespace: str | None = None) -> None:
        self.endpoint = endpoint
        self._namespace = namespace
        with self._asking():
            bearer = token()
            # Asked here first: kfp's client asks five times, and then does not say what was wrong.
            settings = Configuration(host=endpoint)
            if bearer:
                settings.api_key["authorization"], settings.api_key_prefix["authorization"] = bearer, "Bearer"
            health = HealthzServiceApi(_patient(ApiClient(settings))).healthz_service_get_healthz()
            self._several_users = bool(health.multi_user)
            self._client = _Client(health, host=endpoint, existing_token=bearer)

    def _of(self, namespace: str) -> str | None:
        return (self._namespace or namespace) if self._several_users else None

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            # kfp prints links to its web page, and warns of its own settings.
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except IfasError:
            raise
        except Exception as error:  # kfp wraps neither urllib3's errors nor its own in one base class
            status, body = getattr(error, "status", None), str(getattr(error, "body", "") or "")
            said = f"{status} {_message(body)}" if status else f"{type(error).__name__}: {error}"
            raise ConnectionError(f"KFP at {self.endpoint} refused or did not answer: {said}") from error


class Runs(Kfp):
    """The pipeline runs at a KFP endpoint."""

    def submit(
        self,
        config: RunConfig,
        *,
        experiment: str,
        name: str,
        pipeline: str = "retrain",
        arguments: Mapping[str, str] | None = None,
    ) -> str:
        """Starts one run of a pipeline; returns KFP's id of it, which is the run's id everywhere.

        Args:
            arguments: of the pipeline, beside the configuration.
        """
        cluster = config.cluster
        with tempfile.TemporaryDirectory() as scratch:
            package = Path(scratch) / f"{pipeline}.yaml"
            compile_to(package, config, pipeline)
            with self._asking():
                run = self._client.create_run_from_pipeline_package(
                    str(package),
                    arguments={**(arguments or {}), "config": config.model_dump_json(), "run_id": ""},
                    run_name=name,
                    experiment_name=experiment,
                    namespace=self._of(cluster.namespace),
                    pipeline_root=cluster.pipeline_root or None,
                    service_account=cluster.service_account,
                    enable_caching=False,
                )
        return str(run.run_id)

    def listing(self, *, namespace: str, count: int) -> list[dict[str, Any]]:
        """The newest runs: id, name, state, created, finished."""
        with self._asking():
            found = self._client.list_runs(page_size=count, sort_by="created_at desc", namespace=self._of(namespace))
        return [_shown(run) for run in found.runs or []]

    def named(self, name: str, *, namespace: str) -> list[dict[str, Any]]:
        """The runs of a name, oldest first."""
        wanted = {"predicates": [{"operation": EQUALS, "key": "display_name", "stringValue": name}]}
        with self._asking():
            found = self._client.list_runs(filter=json.dumps(wanted), page_size=100, namespace=self._of(namespace)).runs
        never = datetime.max.replace(tzinfo=UTC)
        return [_shown(run) for run in sorted(found or [], key=lambda run: (run.created_at or never, run.run_id))]

    def get(self, run_id: str) -> dict[str, Any]:
        """One run, with its error and its tasks: name, state, pod."""
        with self._asking():
            run = self._client.get_run(run_id)
        tasks = (run.run_details.task_details if run.run_details else None) or []
        return {
            **_shown(run),
            "error": str(run.error.message or "") if run.error else "",
            "tasks": [
                {"name": task.display_name, "state": str(task.state or ""), "pod": task.pod_name or ""}
                for task in tasks
            ],
        }

    def cancel(self, run_id: str) -> None:
        """Ends a run. Its pods get SIGTERM, on which a step deletes its RayJob."""
        with self._asking():
            self._client.terminate_run(run_id)


def _message(body: str) -> str:
    """The first line of what KFP's API says of an error."""
    try:
        found = json.loads(body)
        return str(found.get("error_message") or found.get("message") or found.get("error") or body)
    except ValueError:
        return body.strip()


def _shown(run: Any) -> dict[str, Any]:
    return {
        "id": str(run.run_id),
        "name": str(run.display_name or ""),
        "state": str(run.state or "PENDING"),
        "created": run.created_at.isoformat(timespec="seconds") if run.created_at else "",
        "finished": run.finished_at.isoformat(timespec="seconds") if run.finished_at else "",
    }
