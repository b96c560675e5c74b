"""infra/components/review: what its pod may do, and that its command serves the page as that pod: another user, nothing
to write to but /tmp, its databases in PostgreSQL and its files in an object store, all of them real."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from ifas.core import storage
from ifas.core.config import load
from ifas.core.files import sha256_file
from ifas.promotion.gate import decide
from ifas.promotion.ledger import Ledger
from ifas.promotion.policy import Policy, Rule
from tests.infra.test_manifests import documents, of_kind, pod_templates, selects
from tests.ray_nodes import refused
from tests.servers import free_port, s3_server
from tests.servers_pg import postgres_server
from tests.unit.evaluation.tiles import CUES, PROTOCOL, TRYING, BrightnessJudge, make_dataset
from tests.unit.review.conftest import lineage_of

PASSWORD = "correct horse battery"
WITH = "local+review+postgres+trigger"
BEHIND = "local+review+review-ingress"


@pytest.fixture(scope="module")
def template() -> dict:
    return pod_templates(WITH)["Deployment/ifas-review"]


@pytest.fixture(scope="module")
def container(template) -> dict:
    (only,) = template["spec"]["containers"]
    return only


def test_one_page_without_permission_or_token(template):
    account = template["spec"]["serviceAccountName"]
    assert of_kind(WITH, "ServiceAccount")[account]["automountServiceAccountToken"] is False
    for binding in of_kind(WITH, "RoleBinding").values():
        assert account not in [subject["name"] for subject in binding["subjects"]]
    assert of_kind(WITH, "Deployment")["ifas-review"]["spec"]["replicas"] == 1, "failed sign-ins are counted in it"


def test_its_secrets_come_by_reference_and_are_those_that_are_read(container):
    refs = {item["name"]: item["valueFrom"]["secretKeyRef"] for item in container["env"] if "valueFrom" in item}
    assert all(ref["key"] == name for name, ref in refs.items())
    needed = {name for name, ref in refs.items() if not ref.get("optional")}
    assert needed == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "IFAS_LEDGER", "IFAS_REVIEW", "IFAS_REVIEW_KEY"}
    from ifas_pipelines import cluster

    # What runs are held to, the page is held to: else it would decide on a ledger that they refuse.
    assert set(refs) == needed | {*cluster.CHECK_KEYS, *cluster.EVENTS_KEYS, "IFAS_REVIEW_SIGNING_KEY"}


def peers(policy: dict, way: str, end: str) -> list[dict]:
    return [peer for rule in policy["spec"][way] for peer in rule[end]]


def test_who_reaches_it_and_whom_it_reaches(template, container):
    policies, own = of_kind(WITH, "NetworkPolicy"), template["metadata"]["labels"]
    policy = policies["allow-review"]
    assert selects(policy["spec"]["podSelector"], own)
    for peer in peers(policy, "ingress", "from"):
        assert peer["podSelector"]["matchLabels"] == {"ifas.dev/review-proxy": "true"}
    assert {p["port"] for rule in policy["spec"]["egress"] for p in rule["ports"]} == {53, 5432, 8333, 9000}
    assert selects(of_kind(WITH, "Service")["ifas-review"]["spec"]["selector"], own)
    # The database and the trigger of this namespace let it in.
    assert any(selects(peer["podSelector"], own) for peer in peers(policies["allow-ledger"], "ingress", "from"))
    assert selects(policies["allow-event-senders"]["spec"]["podSelector"], own)
    assert any(
        "namespaceSelector" not in peer and selects(peer["podSelector"], own)
        for peer in peers(policies["allow-trigger"], "ingress", "from")
    )


def test_its_route_leads_to_it_and_nobody_is_vouched_for_on_it(template):
    (route,) = of_kind(BEHIND, "HTTPRoute").values()
    (rule,) = route["spec"]["rules"]
    (backend,) = rule["backendRefs"]
    service = of_kind(BEHIND, "Service")[backend["name"]]["spec"]
    assert backend["port"] in {port["port"] for port in service["ports"]}
    assert selects(service["selector"], template["metadata"]["labels"])
    policy = of_kind(BEHIND, "NetworkPolicy")["allow-gateway-to-review"]
    assert selects(policy["spec"]["podSelector"], template["metadata"]["labels"])
    (dropped,) = [one["requestHeaderModifier"]["remove"] for one in rule["filters"]]
    settings = load("base").review.model_copy(update={"proxy_header": "X-Forwarded-User"})
    assert {settings.proxy_header, settings.proxy_groups} <= set(dropped)
    # The proxy's settings that the example shows are those that this drops.
    shown = yaml.safe_load(re.sub(r"^  # (?=\w+: )", "  ", settings_file(), flags=re.MULTILINE))["review"]
    assert {shown["proxy_header"], shown["proxy_groups"]} <= set(dropped)


def settings_file() -> str:
    (mounted,) = [
        doc
        for doc in documents(WITH)
        if doc["kind"] == "ConfigMap" and doc["metadata"]["name"].startswith("ifas-review-")
    ]
    return str(mounted["data"]["review.yaml"])


def test_what_its_example_shows_is_accepted(tmp_path):
    file = tmp_path / "review.yaml"
    file.write_text(re.sub(r"^  # (?=\w+: )", "  ", settings_file(), flags=re.MULTILINE))
    made = load(str(file), []).review
    assert made.signing_key == "env:IFAS_REVIEW_SIGNING_KEY"
    assert made.roles["fas-reviewers"] == "reviewer"
    file.write_text(settings_file())
    assert load(str(file), []).review.proxy_header == "", "as it is applied, people have local accounts"


@contextmanager
def in_the_pod(folder: Path, environment: dict[str, str], settings: Path) -> Iterator[list[str]]:
    """What to put before a command so that it runs as the container does: as user 10001 without any right to write,
    on a file system that is read-only but for `folder`/tmp."""
    tmp = folder / "tmp"
    tmp.mkdir()
    script = (
        "for m in $(tac /proc/self/mounts | cut -d' ' -f2); do mount -o remount,bind,ro $m 2>/dev/null || true; done; "
        f"mount -t tmpfs -o mode=0777,size=1g none {tmp} && cd {tmp} && echo mounted && exec sleep infinity"
    )
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "mounted\n"
        # It may read what is root's, such as this interpreter; an image's is readable by all.
        user = ["setpriv", "--reuid=10001", "--regid=10001", "--clear-groups", "--no-new-privs"]
        reads = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all"]
        reads[-1] += ",+dac_read_search"
        words = [f"{name}={value}" for name, value in environment.items()]
        inside = ["nsenter", "-t", str(holder.pid), "-m", f"--wd={tmp}", *user, *reads, "env", "-i", *words]
        enter = inside[: inside.index("setpriv")]
        tried = subprocess.run([*enter, "touch", str(settings)], capture_output=True, text=True, check=False)
        assert "Read-only file system" in tried.stderr, tried.stderr
        yield inside
    finally:
        holder.kill()
        holder.wait()


class Browser:
    """A client that keeps its cookie, and comes through a Gateway that ended TLS."""

    def __init__(self, url: str) -> None:
        self.url, self.cookie = url, ""

    def ask(self, path: str, **form: str) -> tuple[int, str, str]:
        """Status, text, and where it leads to."""
        from urllib.parse import urlencode

        host = "review.example.invalid"
        headers = {"Host": host, "Cookie": self.cookie, "Origin": f"https://{host}"}
        body = urlencode(form).encode() if form else None
        request = urllib.request.Request(self.url + path, data=body, headers=headers)

        class Stay(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: object) -> None:
                return None

        try:
            answer = urllib.request.build_opener(Stay).open(request, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            if given := answer.headers.get("set-cookie"):
                assert "secure" in given.lower(), given
                self.cookie = given.split(";")[0]
            return answer.status, answer.read().decode(), answer.headers.get("location", "")

    def post(self, page: str, path: str, **form: str) -> tuple[int, str, str]:
        found = re.search(r'name="token" value="([0-9a-f]+)"', self.ask(page)[1])
        assert found, page
        return self.ask(path, token=found[1], **form)


def candidate_in(store: str, ledger: Ledger, folder: Path) -> str:
    """A candidate that waits, with its files in the object store."""
    from ifas.evaluation.predict import predict
    from ifas.evaluation.protocol import evaluate

    manifest, pictures = make_dataset()
    predicted = predict(BrightnessJudge(), manifest, pictures, PROTOCOL, TRYING, CUES)
    metrics = json.loads(json.dumps(evaluate(predicted.frame, PROTOCOL, TRYING, predicted.handled)))
    (folder / "evaluation").mkdir()
    predicted.frame.to_parquet(folder / "evaluation" / "predictions.parquet", index=False)
    lineage = lineage_of(metrics)
    (folder / "lineage.json").write_text(lineage.model_dump_json())
    for name in ("evaluation", "lineage.json"):
        storage.store(folder / name, f"{store}/{name}")
    rule = Rule(id="worst", metric="apcer_max", slice="target", max=1.0, reason="it opens a door")
    policy = Policy(name="door", rules=[rule])
    evidence = {
        "dataset": "1", "captions": "2", "model": "m", "metrics": "x", "policy": policy.sha256, "champion": "",
        "predictions": sha256_file(folder / "evaluation" / "predictions.parquet"), "steps": lineage.steps_sha256(),
    }  # fmt: skip
    artifacts = {"evaluation": f"{store}/evaluation", "lineage": f"{store}/lineage.json"}
    made = ledger.submit(
        product="door", run_id="r", evidence=evidence, model_sha256="m", dataset_revision="abcdef012345",
        metrics=metrics, decision=decide(metrics, None, policy),
        facts={"champion": None, "policy": policy.model_dump(mode="json"), "artifacts": artifacts},
    )  # fmt: skip
    return str(made.id)


@pytest.mark.slow
@pytest.mark.skipif(bool(refused()) or not shutil.which("setpriv"), reason="needs namespaces of its own and setpriv")
def test_its_command_serves_and_decides_as_the_pod(container, monkeypatch):
    folder = Path(tempfile.mkdtemp(prefix="ifas-review-pod-"))
    folder.chmod(0o755)
    try:
        with postgres_server() as server, s3_server(folder / "s3") as store:
            reached = {**store.env, "AWS_ENDPOINT_URL": store.url}
            for name, value in reached.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("IFAS_HOME", str(folder / "home"))
            urls = {"IFAS_LEDGER": server.fresh("ledger"), "IFAS_REVIEW": server.fresh("review")}
            ledger = Ledger(urls["IFAS_LEDGER"])
            (folder / "made").mkdir()
            candidate = candidate_in(f"s3://{store.bucket}/run", ledger, folder / "made")
            serve_and_decide(folder, container, candidate, {**reached, **urls})
            assert ledger.get(candidate).state == "approved"
            ledger.close()
    finally:
        shutil.rmtree(folder)


def serve_and_decide(folder: Path, container: dict, candidate: str, given: dict[str, str]) -> None:
    settings, port = folder / "review.yaml", free_port()
    settings.write_text(settings_file().replace("port: 8080", f"port: {port}").replace("0.0.0.0", "127.0.0.1"))
    own = {"TMPDIR": "/tmp", **{item["name"]: item["value"] for item in container["env"] if "value" in item}}
    environment = {name: value.replace("/tmp", str(folder / "tmp")) for name, value in own.items()}
    environment |= {**given, "IFAS_REVIEW_KEY": secrets.token_hex(32), "PW": PASSWORD, "LANG": "C.UTF-8"}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with in_the_pod(folder, environment, settings) as inside:
        command = [{"/etc/ifas/review.yaml": str(settings)}.get(word, word) for word in container["args"]]
        log = folder / "page.log"
        with log.open("wb") as out:
            page = subprocess.Popen([*inside, *command], stdout=out, stderr=out)
        try:
            until = time.monotonic() + 120
            while "review page at" not in log.read_text():
                assert page.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.3)
            # As `kubectl exec` does.
            add = ["ifas", "review", "account", "add", "ann", "--role", "reviewer", "--password-env", "PW"]
            added = subprocess.run(
                [*inside, *add, "-c", str(settings)], capture_output=True, text=True, timeout=120, check=False
            )
            assert added.returncode == 0, added.stderr
            browser = Browser(f"http://127.0.0.1:{port}")
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert browser.ask(container[probe]["httpGet"]["path"])[:2] == (200, "ok")
            assert browser.post("/sign-in", "/sign-in", name="ann", password=PASSWORD)[0] == 303
            place = f"/candidates/{candidate}"
            status, text, _ = browser.ask(place)
            assert status == 200, text
            assert "<svg" in text, "its charts are drawn, from predictions in the object store"
            assert browser.ask(f"{place}/sweep?at=10")[0] == 200
            assert browser.post(place, f"{place}/comments", text="seen")[0] == 303
            status, said, _ = browser.post(place, f"{place}/decision", action="approve", reason="it is well")
            assert status == 303, said
            peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{page.pid}/status").read_text())
            assert peak
            assert int(peak[1]) < 0.75 * 2**20 * int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
        finally:
            page.terminate()
            page.wait(30)
        assert "Traceback" not in log.read_text(), log.read_text()
