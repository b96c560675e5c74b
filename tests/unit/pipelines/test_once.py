"""A run is started at most once in effect, whatever happens to the answer."""

import json
import socket
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import yaml
from ifas_pipelines import remote
from ifas_pipelines.once import start_once
from ifas_pipelines.remote import Runs, compile_to

from ifas.core.config import load
from ifas.core.errors import ConfigError, LaunchError
from tests.servers_kfp import kfp_server

pytestmark = pytest.mark.filterwarnings("ignore")
ARTIFACTS = {name: f"s3://ifas/{name}" for name in ("candidate", "model", "evaluation", "lineage")}


@pytest.fixture
def api():
    with kfp_server() as server:
        yield server


@contextmanager
def silent_server():
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def start(api, name="retrain-0123", pipeline="retrain", arguments=None):
    return start_once(api.url, pipeline, name, load("tiny"), arguments or {}, experiment="ifas")


def live(api, name="retrain-0123"):
    return [run for run in api.runs_named(name) if run.state != "CANCELING"]


def test_a_second_start_finds_the_first(api):
    assert start(api) == start(api)
    assert len(api.runs_named("retrain-0123")) == 1
    assert start(api, "retrain-4567") != start(api)


def test_a_start_whose_answer_was_lost_is_found(api):
    api.lose_answers = 1
    with pytest.raises(LaunchError):
        start(api)
    assert len(api.runs_named("retrain-0123")) == 1
    assert start(api) == api.runs_named("retrain-0123")[0].run_id
    assert len(api.runs_named("retrain-0123")) == 1


def test_of_two_that_were_made_all_the_same_the_older_goes_on(api, monkeypatch):
    first = start(api)
    with monkeypatch.context() as patched:
        # The first list comes before the first run is there.
        real, early = Runs.named, [[]]
        patched.setattr(Runs, "named", lambda *args, **named: early.pop() if early else real(*args, **named))
        assert start(api) == first
    assert len(api.runs_named("retrain-0123")) == 2
    assert [run.run_id for run in live(api)] == [first]
    assert start(api) == first


@pytest.mark.parametrize("status", [500, 503, 401, 404, 429])
def test_what_may_pass_is_said_to_be_tried_again(api, status):
    start(api, "other")
    api.down = status
    with pytest.raises(LaunchError, match="retrain-0123"):
        start(api)
    api.down = 0
    assert start(api)


def test_a_kfp_that_says_nothing_is_not_waited_for(api, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT", (1, 1))
    runs = Runs(api.url)
    with silent_server() as url, pytest.raises(LaunchError, match="retrain-0123"):
        start(SimpleNamespace(url=url))
    with monkeypatch.context() as patched:
        patched.setattr(type(api), "finish_request", lambda *_: time.sleep(3))
        with pytest.raises(ConnectionError, match="TimeoutError"):
            runs.submit(load("tiny"), experiment="ifas", name="x")


def test_a_token_in_a_file_is_read_at_each_call(api, monkeypatch, tmp_path):
    file = tmp_path / "token"
    monkeypatch.setenv("KFP_TOKEN_FILE", str(file))
    with pytest.raises(LaunchError, match="token"):
        start(api)
    for word in ("one", "two"):
        api.token = word
        file.write_text(f"{word}\n")
        start(api, f"retrain-{word}")


def test_what_kfp_refuses_is_final(api):
    with pytest.raises(ConfigError, match=r"400.*lineage.*missing"):
        start(api, pipeline="release")
    assert not api.runs_named("retrain-0123")


def test_a_release_names_the_artifacts_and_the_ledger_decides(api, tmp_path):
    start(api, "release-0123", "release", ARTIFACTS)
    (run,) = api.runs_named("release-0123")
    assert run.pipeline_spec["pipeline_spec"]["pipelineInfo"]["name"] == "release"
    assert ARTIFACTS.items() <= run.runtime_config.parameters.items()
    assert json.loads(run.runtime_config.parameters["config"])["profile"] == "tiny"
    compile_to(tmp_path / "release.yaml", load("tiny"), "release")
    ir = next(yaml.safe_load_all((tmp_path / "release.yaml").read_text()))
    steps = ir["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert "'approved'" in steps["condition-2"]["triggerPolicy"]["condition"]
    assert not steps["approve"]["cachingOptions"].get("enableCache")
    assert set(ir["root"]["inputDefinitions"]["parameters"]) == {"config", "run_id", *ARTIFACTS}
