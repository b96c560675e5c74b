"""`ifas schedule` over the wire, against a stand-in made of the KFP API's own models."""

import json
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from ifas.cli.main import app
from ifas.core.errors import ConfigError, LaunchError
from tests.servers_kfp import kfp_server

pytestmark = pytest.mark.filterwarnings("ignore")
IMAGE = "registry.example.org/ifas@sha256:" + "1" * 64
PROTOCOL = {
    "protocol.source_domains": ["a"],
    "protocol.target_domains": ["b"],
    "ingest.registry": "https://git.example.org/faces.git",
    "cluster.image": IMAGE,
    "cluster.storage": "s3://ifas/kept",
}


@pytest.fixture
def api():
    with kfp_server() as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "nightly.yaml")
    return tmp_path


def write(path, **changes):
    text = {"pipeline": "retrain", "cron": "0 0 2 * * *", "config": "base", "set": PROTOCOL, **changes}
    path.write_text(yaml.safe_dump({k: v for k, v in text.items() if v is not None}))


def ifas(api, *arguments):
    result = CliRunner().invoke(app, ["schedule", *map(str, arguments), "--endpoint", api.url])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def applied(api, *arguments):
    return {c["name"]: c["action"] for c in json.loads(ifas(api, "apply", *arguments, "--json"))}


def test_a_schedule_is_made_with_one_run_at_a_time_and_no_catch_up(api, folder):
    assert applied(api, folder) == {"nightly": "create"}
    (made,) = api.recurring_named("nightly")
    assert made.max_concurrency == "1"
    assert made.no_catchup is True
    assert made.status == "ENABLED"
    assert made.trigger.cron_schedule.cron == "0 0 2 * * *"
    assert made.service_account == "ifas-pipeline-runner"
    assert made.pipeline_spec["pipeline_spec"]["pipelineInfo"]["name"] == "retrain"
    executors = made.pipeline_spec["pipeline_spec"]["deploymentSpec"]["executors"].values()
    assert {executor["container"]["image"] for executor in executors} == {IMAGE}
    parameters = made.runtime_config.parameters
    assert json.loads(parameters["config"])["protocol"]["source_domains"] == ["a"]
    # KFP's own id of each run.
    assert parameters["run_id"] == ""


def test_applying_again_changes_nothing(api, folder):
    applied(api, folder)
    before = list(api.writes)
    assert applied(api, folder) == {"nightly": "unchanged"}
    assert api.writes == before


@pytest.mark.parametrize(
    "change", [{"cron": "0 30 2 * * *"}, {"set": {**PROTOCOL, "train.steps": 9}}, {"config": "large"}]
)
def test_a_change_replaces_the_old_one(api, folder, change):
    applied(api, folder)
    (old,) = api.recurring_named("nightly")
    write(folder / "nightly.yaml", **change)
    assert applied(api, folder) == {"nightly": "replace"}
    (new,) = api.recurring_named("nightly")
    assert new.recurring_run_id != old.recurring_run_id
    assert new.status == "ENABLED"


def test_a_change_leaves_the_run_in_progress_alone(api, folder):
    applied(api, folder)
    (old,) = api.recurring_named("nightly")
    run = api.start_recurring(old)
    write(folder / "nightly.yaml", cron="0 30 2 * * *")
    assert f"waits for run {run.run_id}" in ifas(api, "apply", folder)
    assert [made.status for made in api.recurring_named("nightly")] == ["DISABLED", "ENABLED"]
    assert f"waits for run {run.run_id}" in ifas(api, "apply", folder)
    assert run.state == "RUNNING"
    run.state = "SUCCEEDED"
    assert applied(api, folder) == {"nightly": "repair"}
    assert [made.status for made in api.recurring_named("nightly")] == ["ENABLED"]
    assert applied(api, folder) == {"nightly": "unchanged"}


@pytest.mark.parametrize("by", ["delete", "prune"])
def test_a_deleted_schedule_stays_until_its_run_has_ended(api, folder, by):
    write(folder / "weekly.yaml")
    applied(api, folder)
    (made,) = api.recurring_named("weekly")
    run = api.start_recurring(made)
    (folder / "weekly.yaml").unlink()
    command = ("delete", "weekly") if by == "delete" else ("apply", folder, "--prune")
    ifas(api, *command, "--dry-run")
    assert made.status == "ENABLED"
    assert f"waits for run {run.run_id}" in ifas(api, *command)
    assert (made.status, run.state) == ("DISABLED", "RUNNING")
    assert api.recurring_named("weekly")
    run.state = "FAILED"
    ifas(api, *command)
    assert not api.recurring_named("weekly")


def test_prune_needs_the_folder(api, folder):
    write(folder / "weekly.yaml")
    applied(api, folder)
    with pytest.raises(ConfigError, match="other files"):
        ifas(api, "apply", folder / "nightly.yaml", "--prune")
    assert len(api.recurring) == 2


def test_what_somebody_switched_off_by_hand_is_on_again(api, folder):
    applied(api, folder)
    (made,) = api.recurring_named("nightly")
    made.status = "DISABLED"
    assert applied(api, folder) == {"nightly": "repair"}
    assert [made.status for made in api.recurring_named("nightly")] == ["ENABLED"]


def test_a_schedule_is_switched_off_and_on_by_its_file(api, folder):
    for enabled, status in ((True, "ENABLED"), (False, "DISABLED"), (True, "ENABLED")):
        write(folder / "nightly.yaml", enabled=enabled)
        applied(api, folder)
        assert [made.status for made in api.recurring_named("nightly")] == [status]
        assert applied(api, folder) == {"nightly": "unchanged"}


def test_a_failed_replacement_leaves_the_old_one_at_work(api, folder):
    applied(api, folder)
    write(folder / "nightly.yaml", cron="0 0 4 * * *")
    api.refuse_recurring = 1
    with pytest.raises(LaunchError, match="no space left"):
        applied(api, folder)
    (made,) = api.recurring_named("nightly")
    assert (made.status, made.trigger.cron_schedule.cron) == ("ENABLED", "0 0 2 * * *")


def test_a_replacement_that_was_killed_half_way_is_finished(api, folder, monkeypatch):
    from kfp import Client

    applied(api, folder)
    write(folder / "nightly.yaml", cron="0 0 4 * * *")
    with monkeypatch.context() as patched:
        patched.setattr(Client, "delete_recurring_run", lambda *_a, **_k: (_ for _ in ()).throw(KeyboardInterrupt))
        CliRunner().invoke(app, ["schedule", "apply", str(folder), "--endpoint", api.url])
    # Never two that start runs.
    assert sorted(made.status for made in api.recurring_named("nightly")) == ["DISABLED", "ENABLED"]
    assert applied(api, folder) == {"nightly": "repair"}
    (made,) = api.recurring_named("nightly")
    assert (made.status, made.trigger.cron_schedule.cron) == ("ENABLED", "0 0 4 * * *")


def test_dry_run_sends_nothing(api, folder):
    assert applied(api, folder, "--dry-run") == {"nightly": "create"}
    assert api.writes == []


def test_a_removed_file_is_named_and_pruned_on_request(api, folder):
    write(folder / "weekly.yaml", cron="0 0 2 * * 1")
    applied(api, folder)
    (folder / "weekly.yaml").unlink()
    assert applied(api, folder) == {"nightly": "unchanged", "weekly": "not in the files"}
    assert applied(api, folder, "--prune") == {"nightly": "unchanged", "weekly": "delete"}
    assert not api.recurring_named("weekly")


def test_list_and_delete(api, folder):
    applied(api, folder)
    (listed,) = json.loads(ifas(api, "list", "--json"))
    assert (listed["name"], listed["cron"], listed["enabled"]) == ("nightly", "0 0 2 * * *", True)
    assert "nightly" in ifas(api, "list")
    ifas(api, "delete", "nightly", "--dry-run")
    assert api.recurring_named("nightly")
    ifas(api, "delete", "nightly")
    assert not api.recurring_named("nightly")
    with pytest.raises(LaunchError, match="no schedule nightly"):
        ifas(api, "delete", "nightly")


def test_more_schedules_than_a_page_holds(api, folder):
    api.page = 2
    for number in range(4):
        write(folder / f"s{number}.yaml")
    applied(api, folder)
    before = list(api.writes)
    assert set(applied(api, folder).values()) == {"unchanged"}
    assert api.writes == before


def test_somebody_else_s_recurring_run_is_never_touched(api, folder):
    applied(api, folder)
    (made,) = api.recurring_named("nightly")
    made.description = "mine"
    for arguments in (("apply", folder), ("delete", "nightly")):
        with pytest.raises(LaunchError, match="not made by"):
            ifas(api, *arguments)
    assert api.recurring_named("nightly") == [made]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        # KFP would read five fields as second, minute, hour, ...: a run at another time, or every minute.
        ({"cron": "0 2 * * *"}, "six fields"),
        ({"cron": "0 61 2 * * *"}, "minute"),
        ({"cron": "0 0 2 * * 1-"}, "day of week"),
        ({"cron": None}, "cron"),
        ({"pipeline": "reload"}, "reload"),
        ({"config": "huge"}, "huge"),
        ({"set": {"train.stepz": 1, **PROTOCOL}}, "stepz"),
        ({"set": {}}, "source_domains"),
        ({"croon": "x"}, "croon"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_is_sent(api, folder, change, said):
    write(folder / "wrong.yaml", **change)
    with pytest.raises(ConfigError, match=said) as raised:
        applied(api, folder)
    assert "wrong.yaml" in str(raised.value)
    assert api.writes == []


def test_a_name_that_kfp_would_change(api, folder):
    write(folder / "Not a name.yaml")
    with pytest.raises(ConfigError, match="Not a name"):
        applied(api, folder)


def test_a_folder_without_schedules(api, tmp_path):
    with pytest.raises(ConfigError, match="no schedules"):
        applied(api, tmp_path)


def test_an_endpoint_that_is_down_is_named(api, folder):
    gone = SimpleNamespace(url="http://127.0.0.1:9")
    with pytest.raises(LaunchError, match=r"http://127\.0\.0\.1:9"):
        applied(gone, folder)


def test_ours_are_valid(api):
    from tests.infra.test_manifests import INFRA

    assert set(applied(api, INFRA / "schedules").values()) == {"create"}
