"""A ledger with judged candidates, their files, and the review page in front of them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from ifas.core.config import ReviewConfig
from ifas.core.files import sha256_file
from ifas.core.records import Lineage, LineageEntry, Usage
from ifas.database.connection import Database
from ifas.evaluation.predict import predict
from ifas.evaluation.protocol import evaluate
from ifas.promotion.candidate import Candidate
from ifas.promotion.gate import decide
from ifas.promotion.ledger import Ledger
from ifas.promotion.policy import Policy, Rule
from ifas.review.accounts import Accounts
from ifas.review.app import app
from ifas.review.attempts import Attempts
from ifas.review.judged import Dataset
from ifas.review.sessions import Sessions
from ifas.review.tables import REVIEW
from tests.unit.evaluation.conftest import dataset, predictions, trial  # noqa: F401 - fixtures
from tests.unit.evaluation.tiles import CUES, PROTOCOL, TRYING, BrightnessJudge, make_dataset

PASSWORD = "correct horse battery"
PEOPLE = {"vic": "viewer", "ann": "reviewer", "ada": "admin"}
KEY = b"k" * 32
ORIGIN = "http://testserver"
#: A script in every place where somebody may write.
SCRIPT = "<script>alert(1)</script>"
PASSES = Policy(
    name="door",
    rules=[
        Rule(id="worst", metric="apcer_max", slice="target", max=1.0, reason="it opens a door"),
        Rule(id="auc", metric="auc", slice="target", min=0.1, reason="it must rank"),
        Rule(
            id="steady", metric="auc", slice="domain:*", max_drop=0.5, missing_champion="pass", reason="no place worse"
        ),
    ],
)
FAILS = Policy(name="strict", rules=[Rule(id="none", metric="bpcer", slice="target", max=0.0, reason="nobody waits")])


@dataclass
class Clock:
    """Seconds that a test moves."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Site:
    """The page, and what is behind it."""

    root: Path
    ledger: Ledger
    database: Database
    dataset: Dataset
    clock: Clock = field(default_factory=Clock)
    config: ReviewConfig = field(default_factory=ReviewConfig)

    def client(self, address: str = "10.0.0.7", **changes: Any) -> TestClient:
        """A browser that nobody has signed in with."""
        made = app(
            ledger=self.ledger,
            database=self.database,
            config=self.config.model_copy(update=changes),
            key=KEY,
            open_dataset=lambda _place: self.dataset,
            attempts=Attempts(self.clock),
        )
        return TestClient(made, client=(address, 50000), follow_redirects=False, headers={"origin": ORIGIN})

    def signed_in(self, name: str = "ann", **changes: Any) -> TestClient:
        """A browser with which somebody has signed in: without the form, since a password takes its time to check."""
        client = self.client(**changes)
        sessions = Sessions(self.database, KEY, changes.get("session_hours", 8))
        client.cookies.set("ifas_review", sessions.cookie(sessions.begin(name)))
        return client

    def submit(self, policy: Policy = PASSES, product: str = "door", name: str = "one") -> Candidate:
        """A candidate that went through the gate, with its files."""
        return submitted(self, policy, product, name)


def token(page: str) -> str:
    """Of the first form."""
    found = re.search(r'name="token" value="([0-9a-f]+)"', page)
    assert found, page
    return found[1]


def sign_in(client: TestClient, name: str, password: str, **more: str) -> Any:
    form = {"name": name, "password": password, "token": token(client.get("/sign-in").text), **more}
    return client.post("/sign-in", data=form)


@pytest.fixture(scope="session")
def judged() -> tuple[Any, Any, dict[str, Any], Any]:
    """Manifest, pictures, predictions and figures of a real evaluation."""
    manifest, pictures = make_dataset()
    predicted = predict(BrightnessJudge(), manifest, pictures, PROTOCOL, TRYING, CUES)
    return manifest, pictures, evaluate(predicted.frame, PROTOCOL, TRYING, predicted.handled), predicted.frame


def entry(step: str, facts: dict[str, Any], inputs: dict[str, str], outputs: dict[str, str]) -> LineageEntry:
    return LineageEntry(
        step=step, config="c", code="d", inputs=inputs, outputs=outputs, summary=f"{step} done", facts=facts,
        image="local", started="2026-11-27T20:00:00+00:00", seconds=3.5,
        usage=Usage(cpu_hours=0.5, gpu_hours=0.0, peak_memory_gib=1.5, price=0.1, currency="EUR"),
    )  # fmt: skip


def lineage_of(metrics: dict[str, Any]) -> Lineage:
    index = {"counts": {"office": {"train": {"live": 3}}}, "manifest_sha256": "m"}
    steps = [
        entry("ingest", {"index": index}, {}, {"dataset": "1"}),
        entry("caption", {}, {"dataset": "1"}, {"captions": "2"}),
        entry(
            "validate",
            {
                "label_audit": {"contradicted": 1, "species": {}},
                "flags": {"triggers": ["12 images share a corner"]},
                "exposure": {"species": {"print.a4": {"captions": 4, "right_medium": 3}}},
            },
            {"captions": "2"},
            {"validation": "3"},
        ),
        entry("train", {"steps": 6}, {"validation": "3"}, {"model": "4"}),
        entry("evaluate", {"metrics": metrics}, {"model": "4"}, {"evaluation": "5"}),
    ]
    found = Lineage(run_id="r")
    for one in steps:
        found = found.append(one)
    return found


def submitted(site: Site, policy: Policy, product: str, name: str) -> Candidate:
    folder = site.root / name
    metrics = json.loads((site.root / "metrics.json").read_text())
    folder.mkdir()
    (folder / "predictions.parquet").write_bytes((site.root / "predictions.parquet").read_bytes())
    lineage = lineage_of(metrics)
    (folder / "lineage.json").write_text(lineage.model_dump_json())
    champion = site.ledger.champion(product)
    evidence = {
        "dataset": "1", "captions": "2", "model": name, "metrics": "x",
        "predictions": sha256_file(folder / "predictions.parquet"),
        "steps": lineage.steps_sha256(),
        "policy": policy.sha256, "champion": champion.id if champion else "",
    }  # fmt: skip
    return site.ledger.submit(
        product=product, run_id=f"run-{name}", evidence=evidence, model_sha256=name, dataset_revision="abcdef012345",
        metrics=metrics, decision=decide(metrics, champion.metrics if champion else None, policy),
        facts={
            "champion": champion.id if champion else None,
            "policy": policy.model_dump(mode="json"),
            "artifacts": {
                "evaluation": str(folder), "lineage": str(folder / "lineage.json"), "dataset": "in memory",
            },
        },
    )  # fmt: skip


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with an account for each role: hashing a password takes its time."""
    file = tmp_path_factory.mktemp("people") / "review.db"
    database = Database(f"sqlite:///{file}", REVIEW)
    accounts = Accounts(database)
    for name, role in PEOPLE.items():
        accounts.add(name, PASSWORD, role, "root")
    database.close()
    return file


@pytest.fixture
def site(judged: Any, people: Path, tmp_path: Path) -> Iterator[Site]:
    manifest, pictures, metrics, predicted = judged
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    predicted.to_parquet(tmp_path / "predictions.parquet", index=False)
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    shutil.copy(people, tmp_path / "review.db")
    database = Database(f"sqlite:///{tmp_path / 'review.db'}", REVIEW)
    yield Site(tmp_path, ledger, database, Dataset(manifest, "m", pictures))
    ledger.close()
    database.close()


@pytest.fixture
def candidate(site: Site) -> Candidate:
    """A pending one."""
    return site.submit()


Decide = Callable[..., Any]


@pytest.fixture
def decide_by() -> Decide:
    """Sends the form of a decision, with the token of the page."""

    def send(client: TestClient, candidate: str, action: str, reason: str = "good enough", **more: Any) -> Any:
        page = client.get("/").text  # behind a proxy it has no form
        own = token(page if 'name="token"' in page else client.get(f"/candidates/{candidate}").text)
        form = {"action": action, "reason": reason, "token": own, **more.pop("form", {})}
        return client.post(f"/candidates/{candidate}/decision", data=form, **more)

    return send
