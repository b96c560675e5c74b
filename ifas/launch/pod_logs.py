"""What a pod of a pipeline run has said."""

from __future__ import annotations

from typing import Any

from ifas.core.errors import LaunchError

#: Container of the step in a pod that KFP makes.
CONTAINER = "main"


def last_lines(api: Any, namespace: str, pod: str, count: int) -> str:
    """The last lines of the step's container, or a line that says why there are none.

    Raises:
        LaunchError: the API server can't be reached.
    """
    from kubernetes.client import ApiException, CoreV1Api
    from urllib3.exceptions import HTTPError

    try:
        text = CoreV1Api(api).read_namespaced_pod_log(pod, namespace, container=CONTAINER, tail_lines=count)
    except ApiException as error:
        if error.status == 404:
            return f"(there is no pod {pod} in namespace {namespace}: KFP's page shows the logs it has kept)"
        return f"(no log: {error.reason})"
    except (HTTPError, OSError) as error:
        host = api.configuration.host
        raise LaunchError(
            f"the Kubernetes API server at {host} can't be reached: {error}", "check KUBECONFIG"
        ) from error
    return str(text).rstrip()
