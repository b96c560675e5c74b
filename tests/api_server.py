"""A stand-in for a Kubernetes API server: real HTTP, and the rules of the real one where a client meets them.

It keeps objects with resource versions, generations and owners, applies server-side, answers watches (bookmarks, 410
when a version is too old), evaluates the roles that it holds for each token, validates built-in kinds strictly, and
can throttle, refuse or go away. It has no scheduler, no kubelet and no controllers: a test puts pods and events in as
they would. kubectl works with it, too.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

VERSION = "1.34"


@dataclass(frozen=True)
class Resource:
    """One kind that the server knows."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


def _resources() -> list[Resource]:
    table = {
        "v1": "pods Pod,services Service,configmaps ConfigMap,secrets Secret,serviceaccounts ServiceAccount,"
        "events Event,persistentvolumeclaims PersistentVolumeClaim,resourcequotas ResourceQuota,"
        "limitranges LimitRange,endpoints Endpoints,nodes Node!,namespaces Namespace!",
        "apps/v1": "deployments Deployment,statefulsets StatefulSet,replicasets ReplicaSet",
        "batch/v1": "jobs Job,cronjobs CronJob",
        "networking.k8s.io/v1": "networkpolicies NetworkPolicy",
        "policy/v1": "poddisruptionbudgets PodDisruptionBudget",
        "rbac.authorization.k8s.io/v1": "roles Role,rolebindings RoleBinding,clusterroles ClusterRole!,"
        "clusterrolebindings ClusterRoleBinding!",
        "storage.k8s.io/v1": "storageclasses StorageClass!",
        "scheduling.k8s.io/v1": "priorityclasses PriorityClass!",
        "apiextensions.k8s.io/v1": "customresourcedefinitions CustomResourceDefinition!",
        "authorization.k8s.io/v1": "selfsubjectaccessreviews SelfSubjectAccessReview!",
        "ray.io/v1": "rayjobs RayJob,rayclusters RayCluster",
        "kueue.x-k8s.io/v1beta2": "localqueues LocalQueue,workloads Workload,clusterqueues ClusterQueue!,"
        "resourceflavors ResourceFlavor!",
    }
    found = []
    for api_version, kinds in table.items():
        group, _, version = api_version.rpartition("/")
        for item in kinds.split(","):
            plural, kind = item.split()
            found.append(Resource(group, version, plural, kind.rstrip("!"), not kind.endswith("!")))
    return found


SHORT_NAMES = {"deployments": ["deploy"], "services": ["svc"], "namespaces": ["ns"], "configmaps": ["cm"]}
#: `kubectl auth can-i` sends protobuf, whatever the server would like; it reads JSON.
PROTOBUF = b"k8s\x00"
BUILT_IN = ("", "apps", "batch", "policy")


class Refused(Exception):
    """An answer that is no success, as the API server words it."""

    def __init__(self, code: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.headers = code, reason, message, dict(headers or {})


@dataclass
class Fault:
    """The next `times` requests that `match` get this answer; code 0 cuts the connection without one."""

    code: int
    times: int = 1
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    match: Callable[[str, str], bool] = lambda _method, _path: True


class ApiServer:
    """The stand-in, on a port of its own of this machine.

    Attributes:
        seen: every request as (method, path, query, body), in order.
        used: user -> the (verb, group, resource) that it was granted and used.
        tokens: bearer token -> user name; a request without a token may do everything.
        admission: called with (verb, resource, object) before an object is stored; raises `Refused`.
        before: called with (method, path) before a request is answered.
        logs: pod name -> its log.
        execute: called with (pod, command, standard input) for `kubectl exec`; returns exit code and output.
        faults: what goes wrong next.
    """

    def __init__(self) -> None:
        self.resources = _resources()
        self.objects: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        self.history: list[tuple[int, str, Resource, dict[str, Any]]] = []
        self.oldest = 0
        self.version = 100
        self.seen: list[tuple[str, str, dict[str, list[str]], Any]] = []
        self.used: dict[str, set[tuple[str, str, str]]] = {}
        self.tokens: dict[str, str] = {}
        self.admission: list[Callable[[str, Resource, dict[str, Any]], None]] = []
        self.before: Callable[[str, str], None] | None = None
        self.logs: dict[str, str] = {}
        self.execute: Callable[[dict[str, Any], list[str], bytes], tuple[int, str]] | None = None
        self.faults: list[Fault] = []
        self.bookmark_s = 0.2
        self.errors: list[BaseException | None] = []
        self._applied: dict[tuple[tuple[str, str, str, str], str], dict[tuple[str, ...], Any]] = {}
        self._changed = threading.Condition(threading.RLock())
        self._port = 0
        self._http: _Http | None = None

    # The server as a process: it can go away and come back at the same address.

    def start(self) -> None:
        self._http = _Http(self, self._port)
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._http:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
            with self._changed:
                self._changed.notify_all()

    @property
    def running(self) -> bool:
        return self._http is not None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def kubeconfig(self, token: str = "") -> dict[str, Any]:
        """What KUBECONFIG would hold."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "stand-in", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": token} if token else {}}],
            "contexts": [{"name": "c", "context": {"cluster": "stand-in", "user": "me"}}],
            "current-context": "c",
        }

    # Objects, as a controller in the cluster would read and write them.

    def resource(self, group: str, version: str, plural: str) -> Resource:
        for known in self.resources:
            if (known.group, known.version, known.plural) == (group, version, plural):
                return known
        raise Refused(404, "NotFound", "the server could not find the requested resource")

    def of(self, doc: Mapping[str, Any]) -> Resource:
        for known in self.resources:
            if (known.api_version, known.kind) == (doc["apiVersion"], doc["kind"]):
                return known
        raise Refused(404, "NotFound", "the server could not find the requested resource")

    def put(self, doc: Mapping[str, Any]) -> dict[str, Any]:
        """Stores `doc` as it is, new or instead of an older one; no admission."""
        with self._changed:
            resource = self.of(doc)
            meta = doc.get("metadata", {})
            key = _key(resource, meta.get("namespace", ""), meta["name"])
            return self._store(resource, key, copy.deepcopy(dict(doc)))

    def get(self, plural: str, name: str, namespace: str = "ifas") -> dict[str, Any] | None:
        with self._changed:
            for (_, known, where, called), doc in self.objects.items():
                if (known, called) == (plural, name) and where in ("", namespace):
                    return copy.deepcopy(doc)
            return None

    def items(self, plural: str, namespace: str = "") -> list[dict[str, Any]]:
        with self._changed:
            found = [d for (_, p, ns, _), d in self.objects.items() if p == plural and namespace in ("", ns)]
            return copy.deepcopy(found)

    def set_status(self, plural: str, name: str, status: Mapping[str, Any], namespace: str = "ifas") -> None:
        """Replaces `status`, as its controller does; nothing happens where there is no such object."""
        with self._changed:
            doc = self.get(plural, name, namespace)
            if doc is not None:
                doc["status"] = copy.deepcopy(dict(status))
                self.put(doc)

    def remove(self, plural: str, name: str, namespace: str = "ifas") -> None:
        with self._changed:
            doc = self.get(plural, name, namespace)
            if doc is not None:
                self._delete(self.of(doc), _key(self.of(doc), doc["metadata"].get("namespace", ""), name), now=True)

    def event(self, about: str, name: str, reason: str, message: str, *, kind: str = "Warning", at: str = "") -> None:
        """An event on the object `name` of kind `about`, as `kubectl get events` would list it."""
        when = at or _now()
        self.put(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"{name}.{uuid.uuid4().hex[:12]}", "namespace": "ifas"},
                "involvedObject": {"kind": about, "name": name, "namespace": "ifas"},
                "reason": reason,
                "message": message,
                "type": kind,
                "firstTimestamp": when,
                "lastTimestamp": when,
                "count": 1,
            }
        )

    def compact(self) -> None:
        """Forgets old versions, as etcd does: a watch from one of them is answered 410 Gone."""
        with self._changed:
            self.version += 1
            self.history.clear()
            self.oldest = self.version

    # Rules.

    def _store(self, resource: Resource, key: tuple[str, str, str, str], doc: dict[str, Any]) -> dict[str, Any]:
        old = self.objects.get(key)
        meta = doc.setdefault("metadata", {})
        self.version += 1
        meta["resourceVersion"] = str(self.version)
        for name, text in doc.pop("stringData", {}).items() if doc.get("kind") == "Secret" else ():
            doc.setdefault("data", {})[name] = base64.b64encode(text.encode()).decode()
        meta.setdefault("uid", old["metadata"]["uid"] if old else str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", old["metadata"]["creationTimestamp"] if old else _now())
        if doc.get("kind") == "Pod" and not old:
            doc.setdefault("status", {"phase": "Pending"})
        before = old["metadata"].get("generation", 1) if old else 0
        meta["generation"] = before + (old is None or old.get("spec") != doc.get("spec"))
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            self._delete(resource, key, now=True)
            return doc
        self.objects[key] = doc
        self._tell("ADDED" if old is None else "MODIFIED", resource, doc)
        return copy.deepcopy(doc)

    def _delete(self, resource: Resource, key: tuple[str, str, str, str], *, now: bool = False) -> None:
        doc = self.objects[key]
        if doc["metadata"].get("finalizers") and not now:
            if not doc["metadata"].get("deletionTimestamp"):
                doc = copy.deepcopy(doc)
                doc["metadata"]["deletionTimestamp"] = _now()
                self._store(resource, key, doc)
            return
        del self.objects[key]
        for applied in [k for k in self._applied if k[0] == key]:
            del self._applied[applied]
        self.version += 1
        gone = {**doc, "metadata": {**doc["metadata"], "resourceVersion": str(self.version)}}
        self._tell("DELETED", resource, gone)
        inside = [k for k in self.objects if resource.kind == "Namespace" and k[2] == key[3]]
        for other in [*self._owned_by(doc["metadata"]["uid"]), *inside]:
            if other in self.objects:
                self._delete(self.of(self.objects[other]), other)

    def _owned_by(self, uid: str) -> list[tuple[str, str, str, str]]:
        """The objects whose last owner is gone, which the garbage collector deletes."""
        alive = {doc["metadata"]["uid"] for doc in self.objects.values()}
        return [
            key
            for key, doc in self.objects.items()
            if any(o["uid"] == uid for o in doc["metadata"].get("ownerReferences", []))
            and not any(o["uid"] in alive for o in doc["metadata"]["ownerReferences"])
        ]

    def _tell(self, kind: str, resource: Resource, doc: dict[str, Any]) -> None:
        self.history.append((self.version, kind, resource, copy.deepcopy(doc)))
        self._changed.notify_all()

    def allowed(self, user: str, verb: str, group: str, resource: str, namespace: str, name: str = "") -> bool:
        """Whether a role that the server holds lets `user` do this."""
        if user == "admin":
            return True
        bindings = [*self.items("rolebindings", namespace or "-"), *self.items("clusterrolebindings")]
        for binding in bindings:
            subjects = [
                f"system:serviceaccount:{s.get('namespace', namespace)}:{s['name']}"
                for s in binding.get("subjects", [])
            ]
            if user not in subjects:
                continue
            ref = binding["roleRef"]
            role = self.get("roles" if ref["kind"] == "Role" else "clusterroles", ref["name"], namespace)
            for rule in (role or {}).get("rules", []):
                if (
                    {verb, "*"} & set(rule["verbs"])
                    and {group, "*"} & set(rule.get("apiGroups", []))
                    and {resource, "*"} & set(rule.get("resources", []))
                    and (not rule.get("resourceNames") or name in rule["resourceNames"])
                ):
                    return True
        return False

    def authorise(self, user: str, verb: str, resource: Resource, sub: str, namespace: str, name: str) -> None:
        what = f"{resource.plural}/{sub}" if sub else resource.plural
        if not self.allowed(user, verb, resource.group, what, namespace, name):
            full = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
            named = f' "{name}"' if name else ""
            raise Refused(
                403,
                "Forbidden",
                f'{full}{named} is forbidden: User "{user}" cannot {verb} resource "{what}" in API group '
                f'"{resource.group}" in the namespace "{namespace}"',
            )
        self.used.setdefault(user, set()).add((verb, resource.group, what))

    def validate(self, doc: Mapping[str, Any], resource: Resource) -> None:
        """Strict decoding of built-in kinds."""
        import kubernetes_validate

        if resource.group.endswith(".k8s.io") or resource.group in BUILT_IN:
            try:
                kubernetes_validate.validate(dict(doc), VERSION, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise Refused(400, "BadRequest", f"strict decoding error: {error.message}") from error

    def admit(self, verb: str, resource: Resource, doc: dict[str, Any]) -> None:
        for check in self.admission:
            check(verb, resource, doc)
        if resource.namespaced and self.get("namespaces", doc["metadata"].get("namespace", "")) is None:
            raise Refused(404, "NotFound", f'namespaces "{doc["metadata"].get("namespace", "")}" not found')

    def create(self, resource: Resource, key: tuple[str, str, str, str], doc: dict[str, Any]) -> dict[str, Any]:
        if key in self.objects:
            raise Refused(409, "AlreadyExists", f'{_full(resource)} "{key[3]}" already exists')
        self.admit("CREATE", resource, doc)
        for name in ("resourceVersion", "uid", "creationTimestamp"):
            doc["metadata"].pop(name, None)
        return self._store(resource, key, doc)

    def replace(self, resource: Resource, key: tuple[str, str, str, str], doc: dict[str, Any]) -> dict[str, Any]:
        old = self._there(resource, key)
        said = doc["metadata"].get("resourceVersion")
        if said and said != old["metadata"]["resourceVersion"]:
            raise Refused(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {_full(resource)} "{key[3]}": the object has been modified; '
                "please apply your changes to the latest version and try again",
            )
        self.admit("UPDATE", resource, doc)
        return self._store(resource, key, doc)

    def apply(
        self, resource: Resource, key: tuple[str, str, str, str], doc: dict[str, Any], manager: str, force: bool
    ) -> dict[str, Any]:
        """Server-side apply; lists are owned as a whole."""
        new = dict(_leaves({k: v for k, v in doc.items() if k not in ("apiVersion", "kind", "status")}))
        others = {k[1]: v for k, v in self._applied.items() if k[0] == key and k[1] != manager}
        for who, fields in others.items():
            clash = [path for path, value in new.items() if path in fields and fields[path] != value]
            if clash and not force:
                said = f'Apply failed with 1 conflict: conflict with "{who}": .{".".join(clash[0])}'
                raise Refused(409, "Conflict", said)
        old = self.objects.get(key)
        result = copy.deepcopy(old) if old else {"apiVersion": doc["apiVersion"], "kind": doc["kind"], "metadata": {}}
        for path in self._applied.get((key, manager), {}):
            if path not in new and not any(path in fields for fields in others.values()):
                _unset(result, path)
        for path, value in new.items():
            _set(result, path, copy.deepcopy(value))
        result["metadata"].setdefault("name", key[3])
        if resource.namespaced:
            result["metadata"].setdefault("namespace", key[2])
        self.admit("UPDATE" if old else "CREATE", resource, result)
        self._applied[(key, manager)] = new
        if old is not None and _same(old, result):
            return copy.deepcopy(old)
        return self._store(resource, key, result)

    def merge(
        self, resource: Resource, key: tuple[str, str, str, str], patch: dict[str, Any], *, strategic: bool
    ) -> dict[str, Any]:
        """JSON merge patch, or a strategic one, which merges lists of named things by their names."""
        result = _merged(self._there(resource, key), patch, strategic)
        self.admit("UPDATE", resource, result)
        return self._store(resource, key, result)

    def _there(self, resource: Resource, key: tuple[str, str, str, str]) -> dict[str, Any]:
        if key not in self.objects:
            raise Refused(404, "NotFound", f'{_full(resource)} "{key[3]}" not found')
        return copy.deepcopy(self.objects[key])


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, api: ApiServer, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.api = api

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of the server; anything else fails the test that uses it."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            self.api.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def _any(self) -> None:
        api = self.server.api
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        body = self._body()
        with api._changed:
            api.seen.append((self.command, parts.path, query, body))
        if api.before:
            api.before(self.command, parts.path)
        with api._changed:
            fault = next((f for f in api.faults if f.times > 0 and f.match(self.command, parts.path)), None)
            if fault:
                fault.times -= 1
        try:
            if fault is not None:
                if fault.code == 0:
                    self.close_connection = True
                    return
                said = fault.message or "the server is starting"
                raise Refused(fault.code, "ServiceUnavailable", said, fault.headers)
            self._route(parts.path, query, body)
        except Refused as refused:
            status = {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": refused.message,
                "reason": refused.reason,
                "code": refused.code,
            }
            self._answer(refused.code, status, headers=refused.headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any

    def _body(self) -> Any:
        import yaml

        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if raw.startswith(PROTOBUF):
            return _access_review(raw)
        # An apply patch may be YAML; JSON is YAML, too.
        return yaml.safe_load(raw) if raw else None

    def _user(self) -> str:
        api = self.server.api
        if self.headers.get("Impersonate-User"):
            return str(self.headers["Impersonate-User"])
        token = str(self.headers.get("Authorization") or "").removeprefix("Bearer ").strip()
        if not token:
            return "admin"
        if token not in api.tokens:
            raise Refused(401, "Unauthorized", "Unauthorized")
        return api.tokens[token]

    def _route(self, path: str, query: dict[str, list[str]], body: Any) -> None:
        api = self.server.api
        if path in ("/api", "/apis", "/version", "/readyz") or path.startswith("/openapi/"):
            return self._answer(200, _discovery(api, path))
        words = path.strip("/").split("/")
        group, version, rest = ("", words[1], words[2:]) if words[0] == "api" else (words[1], *_split(words[2:]))
        if not rest:
            return self._answer(200, _resource_list(api, group, version))
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource = api.resource(group, version, rest[0])
        name = rest[1] if len(rest) > 1 else ""
        sub = rest[2] if len(rest) > 2 else ""
        user = self._user()
        if resource.kind == "SelfSubjectAccessReview":
            return self._review(user, body)
        watching = query.get("watch", ["0"])[0] in ("1", "true")
        if sub == "exec":
            self.command = "POST"  # a WebSocket is opened by GET, and is a create all the same
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(self.command) or (
            "watch" if watching else "get" if name else "list"
        )
        api.authorise(user, verb, resource, sub, namespace, name)
        if sub == "exec":
            with api._changed:
                pod = api._there(resource, _key(resource, namespace, name))
            return self._exec(pod, query)
        if self.command == "GET":
            if watching:
                return self._watch(resource, namespace, query)
            with api._changed:
                return self._read(resource, namespace, name, sub, query)
        with api._changed:
            self._answer(*self._write(resource, namespace, name, sub, query, body, user))
        return None

    def _review(self, user: str, body: Any) -> None:
        asked = body["spec"].get("resourceAttributes", {})
        what = asked["resource"] + (f"/{asked['subresource']}" if asked.get("subresource") else "")
        granted = self.server.api.allowed(
            user, asked["verb"], asked.get("group", ""), what, asked.get("namespace", ""), asked.get("name", "")
        )
        self._answer(201, {**body, "status": {"allowed": granted}})

    def _read(self, resource: Resource, namespace: str, name: str, sub: str, query: dict[str, list[str]]) -> None:
        api = self.server.api
        if sub == "log":
            pod = api._there(resource, _key(resource, namespace, name))
            containers = [c["name"] for c in pod.get("spec", {}).get("containers", [])]
            asked = query.get("container", [""])[0]
            if asked and containers and asked not in containers:
                raise Refused(400, "BadRequest", f"container {asked} is not valid for pod {name}")
            lines = io.StringIO(api.logs.get(name, ""), newline="\n").readlines()
            if query.get("timestamps") == ["true"]:
                # Of a container that writes all its lines within a second, to which `sinceTime` is rounded. The
                # kubelet writes its node's own offset, and no zeros at the end.
                stamps = [f"{n + 1:09d}".rstrip("0") for n in range(len(lines))]
                lines = [f"2026-01-01T02:00:00.{n}+02:00 {line}" for n, line in zip(stamps, lines, strict=True)]
            since = datetime.fromisoformat(query.get("sinceTime", ["2026-01-01T00:00:00Z"])[0])
            if since > datetime(2026, 1, 1, tzinfo=UTC):
                lines = []
            tail = int(query.get("tailLines", [len(lines)])[0])
            return self._answer(200, "".join(lines[len(lines) - tail :] if tail < len(lines) else lines))
        if name:
            return self._answer(200, api._there(resource, _key(resource, namespace, name)))
        items = list(self._select(resource, namespace, query))
        return self._answer(
            200,
            {
                "kind": f"{resource.kind}List",
                "apiVersion": resource.api_version,
                "metadata": {"resourceVersion": str(api.version)},
                "items": items,
            },
        )

    def _select(self, resource: Resource, namespace: str, query: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
        api = self.server.api
        for (api_version, plural, where, _), doc in list(api.objects.items()):
            if (api_version, plural) != (resource.api_version, resource.plural) or namespace not in ("", where):
                continue
            if _matches(doc, query):
                yield doc

    def _watch(self, resource: Resource, namespace: str, query: dict[str, list[str]]) -> None:
        api = self.server.api
        since = int(query.get("resourceVersion", ["0"])[0] or 0)
        seconds = float(query.get("timeoutSeconds", ["60"])[0])
        bookmarks = query.get("allowWatchBookmarks", ["false"])[0] == "true"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        deadline = datetime.now(UTC).timestamp() + seconds
        with api._changed:
            initial = query.get("sendInitialEvents", ["false"])[0] == "true"
            if since == 0 or initial:
                for doc in self._select(resource, namespace, query):
                    self._chunk({"type": "ADDED", "object": doc})
                since = api.version
            if initial:
                self._bookmark(resource, {"k8s.io/initial-events-end": "true"})
        while api.running and datetime.now(UTC).timestamp() < deadline:
            with api._changed:
                if since < api.oldest:
                    said = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired"}
                    self._chunk({"type": "ERROR", "object": {**said, "message": f"too old resource version: {since}"}})
                    break
                new = [item for item in api.history if item[0] > since]
                for version, kind, about, doc in new:
                    since = version
                    here = about == resource and namespace in ("", doc["metadata"].get("namespace", ""))
                    if here and _matches(doc, query):
                        self._chunk({"type": kind, "object": doc})
                if not new:
                    api._changed.wait(api.bookmark_s)
                    if bookmarks:
                        self._bookmark(resource, {})
        self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def _bookmark(self, resource: Resource, annotations: dict[str, str]) -> None:
        meta = {"resourceVersion": str(self.server.api.version), "annotations": annotations}
        head = {"kind": resource.kind, "apiVersion": resource.api_version}
        self._chunk({"type": "BOOKMARK", "object": {**head, "metadata": meta}})

    def _exec(self, pod: dict[str, Any], query: dict[str, list[str]]) -> None:
        """`kubectl exec` by WebSocket, protocol v5.channel.k8s.io: the first byte of each message is its stream."""
        key = self.headers.get("Sec-WebSocket-Key")
        if not key or not self.server.api.execute:
            raise Refused(400, "BadRequest", "unable to upgrade: WebSocket is required")
        accepted = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accepted.decode())
        self.send_header("Sec-WebSocket-Protocol", "v5.channel.k8s.io")
        self.end_headers()
        stdin = bytearray()
        while "true" in query.get("stdin", []):
            kind, message = self._message()
            if kind == 9:
                self._frame(message, kind=10)
            elif kind == 8 or message == b"\xff\x00":
                break
            elif kind == 2 and message[:1] == b"\x00":
                stdin += message[1:]
        code, output = self.server.api.execute(pod, query["command"], bytes(stdin))
        self._frame(b"\x01" + output.encode())
        cause = {"reason": "ExitCode", "message": str(code)}
        failed = {"status": "Failure", "reason": "NonZeroExitCode", "message": f"exit code {code}"}
        status = {**failed, "details": {"causes": [cause]}} if code else {"status": "Success"}
        self._frame(b"\x03" + json.dumps({"metadata": {}, **status}).encode())
        self._frame((1000).to_bytes(2, "big"), kind=8)
        self.close_connection = True

    def _message(self) -> tuple[int, bytes]:
        """Kind and content of the client's next message."""
        content, kind = bytearray(), 0
        while True:
            first, second = self.rfile.read(2)
            size = second & 0x7F
            if size > 125:
                size = int.from_bytes(self.rfile.read(2 if size == 126 else 8), "big")
            mask = self.rfile.read(4)
            data = self.rfile.read(size)
            whole = int.from_bytes(data, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
            content += whole.to_bytes(size, "big")
            kind = first & 0x0F or kind
            if first & 0x80:
                return kind, bytes(content)

    def _frame(self, data: bytes, kind: int = 2) -> None:
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
        self.wfile.write(bytes([0x80 | kind]) + size + data)
        self.wfile.flush()

    def _chunk(self, value: Any) -> None:
        data = json.dumps(value).encode() + b"\n"
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _write(
        self, resource: Resource, namespace: str, name: str, sub: str, query: dict[str, list[str]], body: Any, user: str
    ) -> tuple[int, Any]:
        api = self.server.api
        strict = query.get("fieldValidation", [""])[0] == "Strict"
        if self.command == "POST":
            meta = body.setdefault("metadata", {})
            name = meta.setdefault("name", meta.get("generateName", "") + uuid.uuid4().hex[:5])
            if resource.namespaced:
                meta.setdefault("namespace", namespace)
            body.setdefault("apiVersion", resource.api_version)
            body.setdefault("kind", resource.kind)
        key = _key(resource, namespace, name)
        if self.command == "DELETE":
            there = api._there(resource, key)
            wanted = ((body or {}).get("preconditions") or {}).get("uid")
            if wanted and wanted != there["metadata"]["uid"]:
                raise Refused(409, "Conflict", f"the UID in the precondition ({wanted}) does not match")
            api._delete(resource, key)
            return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        if strict:
            api.validate(body, resource)
        if self.command == "POST":
            return 201, api.create(resource, key, body)
        if self.command == "PUT":
            if sub == "status":
                body = {**api._there(resource, key), "status": body.get("status", {})}
            return 200, api.replace(resource, key, body)
        kind = str(self.headers["Content-Type"])
        if kind.startswith("application/apply-patch"):
            new = key not in api.objects
            if new:
                # An apply that creates needs both verbs.
                api.authorise(user, "create", resource, "", namespace, name)
            force = query.get("force", ["false"])[0] == "true"
            manager = query.get("fieldManager", [""])[0]
            if not manager:
                raise Refused(400, "BadRequest", "fieldManager: Required value: is required for apply patch")
            return (201 if new else 200), api.apply(resource, key, body, manager, force)
        if "merge-patch" in kind:
            return 200, api.merge(resource, key, body, strategic="strategic" in kind)
        raise Refused(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {kind}")

    def _answer(self, code: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(value, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """A running stand-in with the namespace `ifas`."""
    server = ApiServer()
    server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ifas"}, "status": {"phase": "Active"}})
    server.start()
    try:
        yield server
    finally:
        server.stop()
    assert not server.errors, server.errors


def _key(resource: Resource, namespace: str, name: str) -> tuple[str, str, str, str]:
    return resource.api_version, resource.plural, namespace if resource.namespaced else "", name


def _full(resource: Resource) -> str:
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _split(words: list[str]) -> tuple[str, list[str]]:
    return words[0], words[1:]


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message; a number takes one byte in what is read here."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 2:
            size = varint()
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            varint()


def _access_review(raw: bytes) -> dict[str, Any]:
    """A SelfSubjectAccessReview as JSON would have it."""
    spec = dict(_fields(dict(_fields(dict(_fields(raw[len(PROTOBUF) :]))[2]))[2]))
    names = {1: "namespace", 2: "verb", 3: "group", 4: "version", 5: "resource", 6: "subresource", 7: "name"}
    asked = {names[number]: value.decode() for number, value in _fields(spec[1]) if number in names}
    head = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    return {**head, "spec": {"resourceAttributes": asked}}


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for name, child in value.items():
            yield from _leaves(child, (*path, name))
    elif path not in (("metadata", "name"), ("metadata", "namespace")):
        yield path, value


def _set(doc: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        if not isinstance(doc.get(name), dict):
            doc[name] = {}
        doc = doc[name]
    doc[path[-1]] = value


def _unset(doc: dict[str, Any], path: tuple[str, ...]) -> None:
    for name in path[:-1]:
        doc = doc.get(name) or {}
    doc.pop(path[-1], None)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one == other


def _merged(doc: Any, patch: Any, strategic: bool) -> Any:
    if strategic and isinstance(doc, list) and isinstance(patch, list):
        for key in ("mountPath", "name"):
            if all(isinstance(item, dict) and key in item for item in [*doc, *patch]):
                news = {item[key]: item for item in patch}
                olds = [_merged(item, news.pop(item[key], {}), strategic) for item in doc]
                return [*news.values(), *olds]
    if not isinstance(patch, dict):
        return patch
    result = dict(doc) if isinstance(doc, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value, strategic)
    return result


def _matches(doc: Mapping[str, Any], query: dict[str, list[str]]) -> bool:
    labels = doc["metadata"].get("labels") or {}
    for term in re.split(r",(?![^()]*\))", query.get("labelSelector", [""])[0]):
        inside = re.fullmatch(r"(\S+) in \((.*)\)", term)
        name, _, value = term.replace("==", "=").partition("=")
        held = (
            labels.get(inside[1]) in re.split(r"\s*,\s*", inside[2])
            if inside
            else term[1:] not in labels
            if term.startswith("!")
            else labels.get(name[:-1]) != value
            if name.endswith("!")
            else labels.get(name) == value
            if "=" in term
            else not term or term in labels
        )
        if not held:
            return False
    for term in filter(None, query.get("fieldSelector", [""])[0].split(",")):
        name, _, value = term.replace("==", "=").partition("=")
        found: Any = doc
        for word in name.split("."):
            found = (found or {}).get(word)
        if str(found or "") != value:
            return False
    return True


def _resource_list(api: ApiServer, group: str, version: str) -> dict[str, Any]:
    known = [r for r in api.resources if (r.group, r.version) == (group, version)]
    if not known:
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": known[0].api_version,
        "resources": [
            {
                "name": r.plural,
                "singularName": r.kind.lower(),
                "namespaced": r.namespaced,
                "kind": r.kind,
                "shortNames": SHORT_NAMES.get(r.plural, []),
                "verbs": ["create"] if r.kind == "SelfSubjectAccessReview" else verbs,
            }
            for r in known
        ],
    }


def _discovery(api: ApiServer, path: str) -> Any:
    if path == "/readyz":
        return "ok"
    if path == "/version":
        major, minor = VERSION.split(".")
        return {"major": major, "minor": minor, "gitVersion": f"v{VERSION}.0", "platform": "linux/amd64"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = {r.group: r.version for r in api.resources if r.group}
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                {
                    "name": group,
                    "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
                    "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version},
                }
                for group, version in groups.items()
            ],
        }
    return _openapi(api, path)


def _openapi(api: ApiServer, path: str) -> dict[str, Any]:
    """Only what kubectl looks for: that a PATCH takes `fieldValidation`, so that the server validates."""
    if path == "/openapi/v3":
        versions = {(r.group, r.api_version) for r in api.resources}
        table = {(f"apis/{v}" if g else f"api/{v}"): {} for g, v in versions}
        return {"paths": {name: {"serverRelativeURL": f"/openapi/v3/{name}"} for name in table}}
    api_version = path.removeprefix("/openapi/v3/").split("/", 1)[1]
    paths = {}
    for r in (r for r in api.resources if r.api_version == api_version):
        base = f"/apis/{api_version}" if r.group else f"/api/{api_version}"
        place = (
            f"{base}/namespaces/{{namespace}}/{r.plural}/{{name}}" if r.namespaced else f"{base}/{r.plural}/{{name}}"
        )
        parameters = [{"name": n, "in": "query", "schema": {"type": "string"}} for n in ("dryRun", "fieldValidation")]
        kind = {"group": r.group, "version": r.version, "kind": r.kind}
        paths[place] = {
            "patch": {
                "parameters": parameters,
                "responses": {"200": {"description": "OK"}},
                "x-kubernetes-group-version-kind": kind,
            }
        }
    return {"openapi": "3.0.0", "info": {"title": "stand-in", "version": VERSION}, "paths": paths}
