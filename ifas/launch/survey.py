"""Reads of a cluster: the namespace of ifas and what is around it. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ifas.core.config import RayConfig, RunConfig
from ifas.core.errors import LaunchError
from ifas.launch.cluster import send
from ifas.launch.rayjob import STEPS

State = Literal["ok", "missing", "unknown", "optional"]
#: State, what, and fix of a finding. `optional` is a thing that is not there and that only some use.
Told = Iterator[tuple[State, str, str]]


class NotAllowed(Exception):
    """The caller may not read this."""


class Survey:
    """Reads of one namespace and of the cluster around it."""

    def __init__(self, api: Any, config: RunConfig) -> None:
        self.api = api
        self.config = config
        self.settings = config.cluster
        self.namespace = config.cluster.namespace
        self.jobs: dict[str, RayConfig] = {step: getattr(config.cluster, step) for step in STEPS}

    def get(self, path: str, **query: str) -> dict[str, Any] | None:
        """The object or list at `path`; None where there is none."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            found = send(self.api, "GET", path, list(query.items()))
        except ApiException as error:
            if error.status == 404:
                return None
            if error.status in (401, 403):
                raise NotAllowed(f"you may not read {path.partition('?')[0]}") from error
            raise LaunchError(f"the cluster refused GET {path}: {error.reason}", "start again later") from error
        except (HTTPError, OSError) as error:
            host = self.api.configuration.host
            raise LaunchError(
                f"the Kubernetes API server at {host} can't be reached: {error}", "check KUBECONFIG and the network"
            ) from error
        return dict(found)

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        return list((self.get(path, **query) or {}).get("items", []))

    def ours(self, plural: str, name: str = "", group: str = "") -> str:
        """Path of a kind, or of one object, in the namespace of ifas."""
        base = f"/apis/{group}" if group else "/api/v1"
        return f"{base}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def labels_of(self, namespace: str) -> Mapping[str, str]:
        found = self.get(f"/api/v1/namespaces/{namespace}")
        return ((found or {}).get("metadata", {}).get("labels")) or {}

    def crd(self, name: str) -> dict[str, Any] | None:
        """A CustomResourceDefinition; None where there is none."""
        return self.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")


def served(crd: Mapping[str, Any]) -> list[str]:
    """The versions that a CustomResourceDefinition serves."""
    return [str(version["name"]) for version in crd["spec"]["versions"] if version.get("served", True)]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector of Kubernetes matches `labels`."""
    for rule in selector.get("matchExpressions") or []:
        key, values = rule["key"], rule.get("values") or []
        held = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[rule["operator"]]
        if not held:
            return False
    return (selector.get("matchLabels") or {}).items() <= dict(labels).items()
