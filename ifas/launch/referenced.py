"""Whether the Secrets that pods refer to are there, with their keys. A pod that lacks one does not start.

What a pod may do without is told, too, with what is then not done.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ifas.launch.rayjob import RayJobSpec
from ifas.launch.survey import Survey, Told

SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "IFAS_LEDGER")
#: Of the same Secret, what steps may do without -> what is then not done.
OPTIONAL_KEYS = {
    "IFAS_WITNESS": "pods keep no heads of the ledger: one that was written anew is not found",
    "IFAS_ADMIN_KEY": "products may be registered by whoever can write to the ledger",
    "IFAS_LEDGER_ID": "another ledger of the same administrator is not refused",
    "IFAS_WEBHOOK": "nobody is told how a run ended, unless its cluster.webhook says whom",
    "IFAS_EVENTS_URL": "nobody is told of decisions, unless a run's gate.events says whom",
    "IFAS_EVENTS_SECRET": "events about decisions can't be signed",
    "IFAS_GATE_KEY": "the gate's results are not signed",
    "IFAS_PACKAGE_KEY": "packages are not signed",
}
GIT_KEYS = ("username", "password")
#: Keys of whole Secrets that a pod gets as variables, beside those that its settings name.
WHOLE = {"ifas-trigger": ("IFAS_TRIGGER_STORE",)}
PEM = b"-----BEGIN"


def credentials(cluster: Survey) -> Told:
    """The Secret of steps and RayJobs. What the configuration counts on is not optional for it."""
    name, config = RayJobSpec.secret, cluster.config
    held = _held(cluster, name)
    needed = set(SECRET_KEYS)
    for key, variable in ((config.package.key, "IFAS_PACKAGE_KEY"), (config.gate.key, "IFAS_GATE_KEY")):
        if key == f"env:{variable}":
            needed.add(variable)
    if config.gate.events or (held and "IFAS_EVENTS_URL" in held):
        # Else the decision itself is refused, hours after the start.
        needed.add("IFAS_EVENTS_SECRET")
    yield from keys(cluster, name, sorted(needed), optional=OPTIONAL_KEYS)


def workloads(cluster: Survey) -> Told:
    """What the pods of Deployments and StatefulSets refer to."""
    for plural in ("deployments", "statefulsets"):
        for workload in cluster.items(cluster.ours(plural, "", "apps/v1")):
            pod = workload["spec"]["template"]["spec"]
            named = list(dict.fromkeys(_named_by_settings(cluster, pod)))
            wanted: dict[str, dict[str, bool]] = {}
            for secret, key, optional in _references(pod):
                wanted.setdefault(secret, {})[key] = optional and key not in named
            for secret in _whole(pod):
                wanted.setdefault(secret, {}).update(dict.fromkeys((*WHOLE.get(secret, ()), *named), False))
            for secret, all_keys in wanted.items():
                if secret != RayJobSpec.secret:  # of which `credentials` tells
                    needed = [key for key, optional in all_keys.items() if not optional]
                    why = f"{workload['metadata']['name']} goes without"
                    rest = {key: why for key, optional in all_keys.items() if optional}
                    yield from keys(cluster, secret, needed, optional=rest)


def keys(cluster: Survey, name: str, needed: Sequence[str], *, optional: Mapping[str, str] | None = None) -> Told:
    """Whether a Secret has these keys, and none ends with a line end.

    Args:
        optional: further keys -> what is not done without them.
    """
    held, further = _held(cluster, name), optional or {}
    if held is None:
        yield "missing", f"Secret {name}", f"infra/README.md says how it is made, with {', '.join(needed)}"
        return
    lacking = [key for key in needed if key not in held]
    known = dict.fromkeys((*needed, *further))
    # A key in PEM is read line by line; any other value is taken with its line end.
    ended = [key for key in known if held.get(key, b"").endswith(b"\n") and not held[key].startswith(PEM)]
    if lacking:
        fix = f"kubectl -n {cluster.namespace} edit secret {name}"
        yield "missing", f"Secret {name} has no {', '.join(lacking)}", fix
    if ended:
        fix = "make it again from files without a line end, which whoever reads the value takes for a part of it"
        yield "missing", f"{', '.join(ended)} in Secret {name} ends with a line end", fix
    if not lacking and not ended:
        yield "ok", f"{name} with its keys", ""
    for key, without in further.items():
        if key not in held and key not in needed:
            yield "optional", f"Secret {name} has no {key}: {without}", ""


def _held(cluster: Survey, name: str) -> dict[str, bytes] | None:
    """The values of a Secret that are not empty; None where there is no such Secret."""
    found = cluster.get(cluster.ours("secrets", name))
    if found is None:
        return None
    return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items() if value}


def _containers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def _references(pod: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Secret, key, and whether the pod starts without it."""
    for container in _containers(pod):
        for item in container.get("env", []):
            if ref := item.get("valueFrom", {}).get("secretKeyRef"):
                yield ref["name"], ref["key"], bool(ref.get("optional"))


def _whole(pod: Mapping[str, Any]) -> list[str]:
    """Secrets of which a container gets every key as a variable."""
    sources = [source for container in _containers(pod) for source in container.get("envFrom", [])]
    return [source["secretRef"]["name"] for source in sources if "secretRef" in source]


def _named_by_settings(cluster: Survey, pod: Mapping[str, Any]) -> Iterator[str]:
    """Variables that the files name which the pod mounts: `env:NAME`, and `secret: NAME` of the trigger's senders."""
    import yaml

    for volume in pod.get("volumes", []):
        if mounted := volume.get("configMap", {}).get("name"):
            found = cluster.get(cluster.ours("configmaps", mounted)) or {}
            for text in (found.get("data") or {}).values():
                try:
                    yield from _variables(yaml.safe_load(text))
                except yaml.YAMLError:
                    continue


def _variables(settings: Any, key: str = "") -> Iterator[str]:
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            yield from _variables(value, str(name))
    elif isinstance(settings, list):
        for value in settings:
            yield from _variables(value, key)
    elif isinstance(settings, str):
        found = settings if key == "secret" else settings.removeprefix("env:")
        if (key == "secret" or found != settings) and re.fullmatch("[A-Z][A-Z0-9_]*", found):
            yield found
