"""A stand-in for the API server of Kubeflow Pipelines: real HTTP, made from kfp-server-api's own models.

What is sent is read into the client's models, so a field that the API does not know is a 400; what is answered is
written from them. It runs nothing: a test moves a run's state on.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api as kfp

API = "/apis/v2beta1"
SERIALIZER = kfp.ApiClient()


class Refused(Exception):
    """An answer that is no success: HTTP status, gRPC code, message."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Kfp(ThreadingHTTPServer):
    """Experiments, runs and recurring runs of one KFP.

    Attributes:
        page: most recurring runs of one answer.
        down: every request gets this status, until it is 0 again.
        lose_answers: so many new runs are made, but the client gets no answer.
        refuse_recurring: so many new recurring runs are refused.
        several_users: whether objects belong to namespaces.
        token: bearer token that every request must carry; empty: none.
        seen: (method, path, body) of every request.
    """

    daemon_threads = True

    def __init__(self, *, several_users: bool = False, token: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.several_users, self.token = several_users, token
        self.experiments: dict[str, kfp.V2beta1Experiment] = {}
        self.runs: dict[str, kfp.V2beta1Run] = {}
        self.recurring: dict[str, kfp.V2beta1RecurringRun] = {}
        self.page = 20
        self.down = self.lose_answers = self.refuse_recurring = 0
        self.seen: list[tuple[str, str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def writes(self) -> list[tuple[str, str]]:
        """Method and path of each request that could change something."""
        return [(method, path) for method, path, _ in self.seen if method != "GET"]

    def runs_named(self, name: str) -> list[kfp.V2beta1Run]:
        """Oldest first."""
        return [run for run in self.runs.values() if run.display_name == name]

    def recurring_named(self, name: str) -> list[kfp.V2beta1RecurringRun]:
        """Oldest first."""
        return [run for run in self.recurring.values() if run.display_name == name]

    def require_namespace(self, namespace: str | None) -> None:
        if self.several_users and not namespace:
            raise Refused(400, 3, "Invalid input error: a namespace is required in multi-user mode")
        if not self.several_users and namespace:
            raise Refused(400, 3, "Invalid input error: in single-user mode, namespace must be empty")

    def new_experiment(self, body: Any) -> kfp.V2beta1Experiment:
        found = _model(body, kfp.V2beta1Experiment)
        self.require_namespace(found.namespace)
        found.experiment_id = str(uuid.uuid4())
        self.experiments[found.experiment_id] = found
        return found

    def new_run(self, body: Any) -> kfp.V2beta1Run:
        run = _model(body, kfp.V2beta1Run)
        if run.experiment_id not in self.experiments:
            raise Refused(404, 5, f"Experiment {run.experiment_id} not found")
        _check_parameters(run)
        run.run_id, run.state, run.created_at = str(uuid.uuid4()), "PENDING", datetime.now(UTC)
        self.runs[run.run_id] = run
        return run

    def new_recurring(self, body: Any) -> kfp.V2beta1RecurringRun:
        run = _model(body, kfp.V2beta1RecurringRun)
        if self.refuse_recurring:
            self.refuse_recurring -= 1
            raise Refused(500, 13, "Internal error: no space left")
        if run.experiment_id not in self.experiments:
            raise Refused(404, 5, f"Experiment {run.experiment_id} not found")
        if not 1 <= int(run.max_concurrency or 0) <= 10:
            raise Refused(400, 3, "Invalid input error: max_concurrency must be from 1 to 10")
        if run.trigger is None or bool(run.trigger.cron_schedule) == bool(run.trigger.periodic_schedule):
            raise Refused(400, 3, "Invalid input error: trigger must be a cron or a periodic schedule")
        _check_parameters(run)
        run.recurring_run_id, run.status, run.created_at = str(uuid.uuid4()), f"{run.mode}D", datetime.now(UTC)
        self.recurring[run.recurring_run_id] = run
        return run

    def recurring_run(self, run_id: str) -> kfp.V2beta1RecurringRun:
        if run_id not in self.recurring:
            raise Refused(404, 5, f"Recurring run {run_id} not found")
        return self.recurring[run_id]

    def switch(self, run_id: str, verb: str) -> dict[str, Any]:
        self.recurring_run(run_id).status = f"{verb.upper()}D"
        return {}

    def start_recurring(self, recurring: kfp.V2beta1RecurringRun) -> kfp.V2beta1Run:
        """A run, as the clock starts it."""
        run = kfp.V2beta1Run(
            run_id=str(uuid.uuid4()),
            recurring_run_id=recurring.recurring_run_id,
            display_name=recurring.display_name,
            state="RUNNING",
            created_at=datetime.now(UTC),
        )
        self.runs[run.run_id] = run
        return run

    def forget(self, run_id: str) -> dict[str, Any]:
        self.recurring_run(run_id)
        del self.recurring[run_id]
        # It owns the workflows of its runs: Kubernetes deletes them, too.
        for run in self.runs.values():
            if run.recurring_run_id == run_id and run.state in ("PENDING", "RUNNING", "CANCELING"):
                run.state = "FAILED"
        return {}

    def run(self, run_id: str) -> kfp.V2beta1Run:
        if run_id not in self.runs:
            raise Refused(404, 5, f"Failed to get a run: ResourceNotFoundError: Run {run_id} not found")
        return self.runs[run_id]

    def terminate(self, run_id: str) -> dict[str, Any]:
        run = self.run(run_id)
        if run.state in ("SUCCEEDED", "FAILED", "CANCELED"):
            raise Refused(400, 3, f"Failed to terminate a run: run {run_id} is already {run.state}")
        run.state = "CANCELING"
        return {}


class _Handler(BaseHTTPRequestHandler):
    server: Kfp

    def log_message(self, *_args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(None)

    def do_DELETE(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}"))

    def _answer(self, body: Any) -> None:
        parts = urlsplit(self.path)
        self.server.seen.append((self.command, parts.path, body))
        try:
            if self.server.down:
                raise Refused(self.server.down, 14, "the server is not there")
            if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
                raise Refused(401, 16, "Unauthenticated: request carries no valid token")
            status, found = 200, self._found(parts.path.removeprefix(API), parse_qs(parts.query), body)
        except Refused as refused:
            status, found = refused.status, {"error": refused.message, "code": refused.code, "message": refused.message}
        if (self.command, parts.path, status) == ("POST", f"{API}/runs", 200) and self.server.lose_answers:
            self.server.lose_answers -= 1
            self.close_connection = True
            return
        data = json.dumps(SERIALIZER.sanitize_for_serialization(found)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _found(self, path: str, query: dict[str, list[str]], body: Any) -> Any:
        kfp_, one = self.server, re.fullmatch(r"/runs/([^/:]+)(:terminate)?", path)
        again = re.fullmatch(r"/recurringruns/([^/:]+)(?::(enable|disable))?", path)
        match self.command, path:
            case "GET", "/healthz":
                return kfp.V2beta1GetHealthzResponse(multi_user=kfp_.several_users)
            case "GET", "/experiments":
                kfp_.require_namespace(query.get("namespace", [""])[0])
                here = query.get("namespace", [None])[0]
                found = [one for one in kfp_.experiments.values() if one.namespace == here]
                if "filter" in query:
                    (predicate,) = json.loads(query["filter"][0])["predicates"]
                    found = [e for e in found if e.display_name == predicate.get("stringValue")]
                return kfp.V2beta1ListExperimentsResponse(experiments=found, total_size=len(found))
            case "POST", "/experiments":
                return kfp_.new_experiment(body)
            case "POST", "/runs":
                return kfp_.new_run(body)
            case "GET", "/runs":
                kfp_.require_namespace(query.get("namespace", [""])[0])
                found = list(kfp_.runs.values())
                if "filter" in query:
                    (predicate,) = json.loads(query["filter"][0])["predicates"]
                    found = [run for run in found if getattr(run, predicate["key"]) == predicate.get("stringValue")]
                newest = sorted(found, key=lambda run: run.created_at, reverse=True)
                if query.get("sort_by") != ["created_at desc"]:
                    newest.reverse()
                return kfp.V2beta1ListRunsResponse(runs=newest[: int(query["page_size"][0])], total_size=len(newest))
            case "POST", "/recurringruns":
                return kfp_.new_recurring(body)
            case "GET", "/recurringruns":
                kfp_.require_namespace(query.get("namespace", [""])[0])
                all_, at = list(kfp_.recurring.values()), int(query.get("page_token", ["0"])[0] or 0)
                end = at + min(int(query["page_size"][0]), kfp_.page)
                return kfp.V2beta1ListRecurringRunsResponse(
                    recurring_runs=all_[at:end],
                    total_size=len(all_),
                    next_page_token=str(end) if end < len(all_) else None,
                )
            case "DELETE", _ if again and not again[2]:
                return kfp_.forget(again[1])
            case "POST", _ if again and again[2]:
                return kfp_.switch(again[1], again[2])
            case "GET", _ if one and not one[2]:
                return kfp_.run(one[1])
            case "POST", _ if one and one[2]:
                return kfp_.terminate(one[1])
        raise Refused(404, 5, f"Not Found: {self.command} {path}")


def _check_parameters(run: Any) -> None:
    wanted = run.pipeline_spec["pipeline_spec"]["root"].get("inputDefinitions", {}).get("parameters", {})
    given = set((run.runtime_config.parameters or {}) if run.runtime_config else {})
    missing = {name for name, said in wanted.items() if not said.get("isOptional")} - given
    if missing or given - set(wanted):
        raise Refused(400, 3, f"Invalid input error: {sorted(missing)} missing, {sorted(given - set(wanted))} unknown")


def _model(body: Any, kind: type) -> Any:
    unknown = set(body) - set(kind.attribute_map.values())
    if unknown:
        raise Refused(400, 3, f"proto: unknown field {sorted(unknown)[0]!r}")

    class Answer:
        data = json.dumps(body)

    return SERIALIZER.deserialize(Answer, kind.__name__)


@contextmanager
def kfp_server(**options: Any) -> Iterator[Kfp]:
    server = Kfp(**options)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
