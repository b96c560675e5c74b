"""A run that is started at most once in effect: it is known by its name.

KFP takes any number of runs of one name, so the name is looked for first. A start whose answer was lost is found by the
next try. Where two were made all the same (an answer came so late that the start was tried again), the older one stays
and the others are ended.
"""

from __future__ import annotations

from collections.abc import Mapping

from ifas_pipelines.remote import Runs
from kfp_server_api import ApiException

from ifas.core.config import RunConfig
from ifas.core.errors import ConfigError, LaunchError

#: Answers to a new run that no other try changes. A gateway says 404 and the like while KFP starts again.
FOR_GOOD = (400, 422)
ENDED = ("CANCELED", "CANCELING", "SUCCEEDED", "FAILED", "SKIPPED")


def start_once(
    endpoint: str,
    pipeline: str,
    name: str,
    config: RunConfig,
    arguments: Mapping[str, str],
    *,
    experiment: str,
    namespace: str | None = None,
) -> str:
    """Starts a run of a pipeline unless there is one of that name; returns its id. A token comes as to `Kfp`.

    Args:
        pipeline: "retrain" or "release".
        arguments: of the pipeline, beside the configuration.

    Raises:
        LaunchError: KFP can't be reached or gives any other error: try again.
        ConfigError: KFP refuses the run for good.
    """
    where = config.cluster.namespace
    try:
        runs = Runs(endpoint, namespace)
        if not runs.named(name, namespace=where):
            try:
                runs.submit(config, experiment=experiment, name=name, pipeline=pipeline, arguments=arguments)
            except ConnectionError as error:
                cause = error.__cause__
                if isinstance(cause, ApiException) and cause.status in FOR_GOOD:
                    raise ConfigError(f"run {name}: {error}", "correct what KFP says") from error
                raise
        found = runs.named(name, namespace=where)
        for run in found[1:]:
            if run["state"] not in ENDED:
                runs.cancel(run["id"])
    except ConnectionError as error:
        raise LaunchError(f"run {name}: {error}", "check that the KFP API is reachable from here") from error
    if not found:
        raise LaunchError(f"KFP at {endpoint} took run {name}, but does not list it", "check --namespace")
    return str(found[0]["id"])
