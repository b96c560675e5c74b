"""The stand-in API server keeps the rules that its clients rely on: versions, conflicts, watches."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.api_server import api_server

MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "ifas"}, "data": {"a": "1"}}


POD = {"containers": [{"name": "c", "image": "i:1"}]}


@pytest.fixture
def server():
    with api_server() as running:
        yield running


def call(server, method, path, body=None, kind="application/json"):
    data = json.dumps(body).encode() if body is not None else None
    with urlopen(Request(server.url + path, data, {"Content-Type": kind}, method=method), timeout=10) as answer:
        return json.loads(answer.read())


def test_an_update_of_an_old_version_is_a_conflict(server):
    path = "/api/v1/namespaces/ifas/configmaps"
    first = call(server, "POST", path, MAP)
    second = call(server, "PUT", f"{path}/m", {**first, "data": {"a": "2"}})
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    with pytest.raises(HTTPError) as caught:
        call(server, "PUT", f"{path}/m", {**first, "data": {"a": "3"}})
    assert caught.value.code == 409
    with pytest.raises(HTTPError) as caught:
        call(server, "POST", path, MAP)
    assert json.loads(caught.value.read())["reason"] == "AlreadyExists"


def test_the_generation_counts_changes_of_the_spec_only(server):
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": "j", "namespace": "ifas"},
        "spec": {"a": 1},
    }
    server.put(job)
    server.set_status("rayjobs", "j", {"jobStatus": "RUNNING"})
    assert server.get("rayjobs", "j")["metadata"]["generation"] == 1
    server.put({**job, "spec": {"a": 2}})
    assert server.get("rayjobs", "j")["metadata"]["generation"] == 2


def test_two_appliers_of_one_field_conflict_and_a_field_left_out_goes(server):
    path = "/api/v1/namespaces/ifas/configmaps/m?fieldManager="
    apply = "application/apply-patch+yaml"
    call(server, "PATCH", f"{path}one", {**MAP, "data": {"a": "1", "b": "1"}}, apply)
    with pytest.raises(HTTPError) as caught:
        call(server, "PATCH", f"{path}two", {**MAP, "data": {"a": "2"}}, apply)
    assert caught.value.code == 409
    assert call(server, "PATCH", f"{path}one", {**MAP, "data": {"a": "1"}}, apply)["data"] == {"a": "1"}


def test_a_watch_from_a_version_that_is_forgotten_is_gone(server):
    server.put(MAP)
    server.compact()
    path = "/api/v1/namespaces/ifas/configmaps?watch=1&resourceVersion=1"
    with urlopen(server.url + path, timeout=10) as answer:
        told = json.loads(answer.readline())
    assert (told["type"], told["object"]["code"]) == ("ERROR", 410)


def test_a_watch_tells_changes_and_bookmarks(server):
    version = call(server, "GET", "/api/v1/namespaces/ifas/configmaps")["metadata"]["resourceVersion"]
    threading.Timer(0.1, server.put, (MAP,)).start()
    query = f"watch=1&resourceVersion={version}&allowWatchBookmarks=true&timeoutSeconds=5"
    kinds = []
    with urlopen(f"{server.url}/api/v1/namespaces/ifas/configmaps?{query}", timeout=10) as answer:
        while kinds[-2:] != ["ADDED", "BOOKMARK"]:
            kinds.append(json.loads(answer.readline())["type"])


def test_kubectl_works_with_it(server, tmp_path):
    config = tmp_path / "kubeconfig"
    config.write_text(json.dumps(server.kubeconfig()))

    def kubectl(*words, stdin=""):
        command = [str(Path(sys.executable).with_name("kubectl")), f"--kubeconfig={config}", f"--cache-dir={tmp_path}"]
        return subprocess.run([*command, *words], input=stdin, capture_output=True, text=True, timeout=60, check=False)

    applied = kubectl("apply", "--server-side", "--validate=strict", "-f", "-", stdin=json.dumps(MAP))
    assert applied.returncode == 0, applied.stderr
    wrong = kubectl("apply", "--server-side", "--validate=strict", "-f", "-", stdin=json.dumps({**MAP, "dat": {}}))
    assert "strict decoding error" in wrong.stderr
    told = threading.Timer(0.5, server.put, ({**MAP, "data": {"a": "2"}},))
    told.start()
    waited = kubectl("wait", "-n", "ifas", "configmap/m", "--for=jsonpath={.data.a}=2", "--timeout=20s")
    assert waited.returncode == 0, waited.stderr

    server.put({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ifas"}, "spec": POD})
    seen = []
    server.execute = lambda pod, command, stdin: (seen.append((pod["metadata"]["name"], command, stdin)), (3, "said"))[
        1
    ]
    ran = kubectl("exec", "-i", "-n", "ifas", "p", "--", "sh", "-c", "x y", stdin="a" * 300_000)
    assert seen == [("p", ["sh", "-c", "x y"], b"a" * 300_000)]
    assert (ran.returncode, ran.stdout) == (3, "said")
