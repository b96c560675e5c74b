"""Without any configuration, the ledger's heads are kept in the registry's git repository: real git, attacked."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ifas.core.config import RunConfig
from ifas.core.errors import ConfigError, DataError
from ifas.data import heads
from ifas.promotion.approval import require_approved
from ifas.promotion.ledger import Ledger
from ifas.promotion.policy import load_policy
from ifas.steps.ledger import ledger_name, open_ledger, open_products
from tests.unit.promotion.test_ledger import disarm, execute, submit
from tests.unit.promotion.test_witness import rejected


def git(repo: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(repo), *args], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return done.stdout.strip()


def make_registry(path: Path) -> Path:
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    (path / "data").write_text("a dataset")
    git(path, "add", "data")
    git(path, "-c", "user.name=ann", "-c", "user.email=ann@example.org", "commit", "-q", "-m", "a dataset")
    return path


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return make_registry(tmp_path / "registry")


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No remote was asked yet."""
    monkeypatch.setenv("IFAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(heads, "_asked", {})
    for name in ("IFAS_LEDGER", "IFAS_WITNESS", "IFAS_LEDGER_ID"):
        monkeypatch.delenv(name, raising=False)


def config(url: str, registry: Path | str, **gate: str) -> RunConfig:
    return RunConfig.model_validate({"ingest": {"registry": str(registry)}, "gate": {"ledger": url, **gate}})


def opened(url: str, registry: Path | str) -> Ledger:
    """The ledger as every command opens it."""
    return open_ledger(config(url, registry))


def branch_of(repo: Path) -> str:
    (name,) = git(repo, "for-each-ref", "--format=%(refname)", "refs/heads/ifas-ledger").splitlines()
    return name


def names(repo: Path) -> list[str]:
    return [one[:18] for one in git(repo, "ls-tree", "--name-only", branch_of(repo)).splitlines()]


def test_heads_are_kept_and_datasets_are_not_disturbed(url: str, registry: Path) -> None:
    before = git(registry, "rev-parse", "HEAD"), git(registry, "status", "--porcelain", "--branch")
    rejected(opened(url, registry))
    assert names(registry) == [f"decisions-{n:08d}" for n in range(1, 5)]
    assert "ann: " in git(registry, "grep", "about", branch_of(registry))
    assert (git(registry, "rev-parse", "HEAD"), git(registry, "status", "--porcelain", "--branch")) == before
    git(registry, "fsck", "--strict")


def test_without_a_registry_there_is_no_witness(url: str, tmp_path: Path) -> None:
    ledger = opened(url, tmp_path / "none")
    rejected(ledger)
    with pytest.raises(ConfigError, match="no witness is set"):
        ledger.without_head()
    assert not (tmp_path / "none").exists()


def test_a_tail_that_was_cut_off_is_found(url: str, registry: Path) -> None:
    """The rejection is erased, with all that it changed."""
    ledger = opened(url, registry)
    bad = rejected(ledger)
    execute(url, *disarm(url), "DELETE FROM decisions WHERE seq > 2", "UPDATE candidates SET state = 'pending'")
    Ledger(url).verify()  # the chain alone can't tell
    for ask in (ledger.verify, lambda: require_approved(ledger, bad, {}), ledger.without_head):
        with pytest.raises(DataError, match=r"entry 3 of its decisions, which branch .* has kept, is gone"):
            ask()
    with pytest.raises(DataError, match="has kept another entry 3"):
        ledger.approve(bad, actor="eve", reason="good")
    with pytest.raises(DataError, match="is another one now"):
        require_approved(ledger, bad, {})


def test_a_ledger_that_was_written_anew_is_found(url: str, registry: Path) -> None:
    """Every row and hash is that of an honest ledger, of another story, in the place of the first."""
    bad = rejected(opened(url, registry))
    tables = ["decisions", "candidates"]
    execute(url, *disarm(url), *(f"DELETE FROM {table}" for table in tables))
    eve = Ledger(url)
    submit(eve, "bad")
    eve.approve(bad, actor="ann", reason="good")
    eve.verify()
    with pytest.raises(DataError, match="is another one now"):
        require_approved(opened(url, registry), bad, {})


def test_a_new_file_in_the_ledgers_place_is_found_and_its_owner_can_begin_anew(tmp_path: Path, registry: Path) -> None:
    file = tmp_path / "ledger.db"
    url = f"sqlite:///{file}"
    rejected(opened(url, registry))
    file.unlink()
    with pytest.raises(DataError, match="is gone") as caught:
        opened(url, registry).verify()
    command = caught.value.fix.split("on purpose: ")[1].split(", and where")[0]
    subprocess.run(command.split(), check=True, capture_output=True)
    rejected(opened(url, registry))


def test_a_product_that_was_written_anew_is_found(url: str, registry: Path) -> None:
    strict, permissive = load_policy("builtin:strict"), load_policy("builtin:permissive")
    honest = open_products(config(url, registry))
    honest.register("door", strict, by_policy=True, actor="admin", reason="a door")
    armed = [one.replace("decisions", "products") for one in disarm(url)]
    execute(url, *armed, "DELETE FROM products")
    eve = open_products(config(url, registry.with_name("none")))
    eve.register("door", permissive, by_policy=True, actor="admin", reason="a door")
    with pytest.raises(DataError, match=r"entry 1 of its products, which branch .* is another one now"):
        honest.get("door")


def test_ledgers_of_one_registry_do_not_meet(tmp_path: Path, registry: Path) -> None:
    for name in ("first", "second"):
        rejected(opened(f"sqlite:///{tmp_path / name}.db", registry))
    assert len(git(registry, "for-each-ref", "refs/heads/ifas-ledger").splitlines()) == 2


def test_a_ledger_of_several_registries_is_whole_in_each(url: str, tmp_path: Path) -> None:
    first, second = make_registry(tmp_path / "one"), make_registry(tmp_path / "two")
    one = submit(opened(url, first), "one")
    opened(url, second).approve(one.id, actor="ann", reason="good")
    assert (len(names(first)), len(names(second))) == (1, 2)
    opened(url, first).verify()
    submit(opened(url, first), "three")
    assert len(names(first)) == 3


def test_many_deciders_at_once_each_keep_theirs(url: str, registry: Path) -> None:
    candidates = [submit(opened(url, registry), f"c{n}", product=f"p{n}").id for n in range(8)]

    def act(candidate: str) -> str:
        own = opened(url, registry)
        own.approve(candidate, actor="ann", reason="good")
        return require_approved(own, candidate, {}).state

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(act, candidates)) == {"approved"}
    assert len(names(registry)) == 16
    git(registry, "fsck", "--strict")


def test_a_registry_that_can_not_be_written_loses_no_decision(
    url: str, registry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The decision stands, it is said that its head is not kept, and the next one keeps both."""
    ledger = opened(url, registry)
    first = submit(ledger, "first")
    block = registry / ".git" / (branch_of(registry) + ".lock")
    block.write_text("")  # as rights would: root of a test may write anywhere
    assert ledger.approve(first.id, actor="ann", reason="good").state == "approved"
    assert "heads are not kept outside of it" in capsys.readouterr().err
    assert require_approved(ledger, first.id, {}).actor == "ann"
    block.unlink()
    submit(ledger, "second")
    assert len(names(registry)) == 3


def test_a_registry_that_is_broken_is_said_and_holds_up_nothing(
    url: str, registry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = opened(url, registry)
    first = submit(ledger, "first")
    shutil.rmtree(registry / ".git" / "objects")
    assert ledger.approve(first.id, actor="ann", reason="good").state == "approved"
    ledger.verify()
    assert "the ledger is not compared with its heads" in capsys.readouterr().err


def test_who_may_add_to_the_branch_can_hide_nothing(url: str, registry: Path) -> None:
    """The heads of what is cut off are removed by a later commit, and others put in their place: no rewriting."""
    ledger = opened(url, registry)
    bad = rejected(ledger)
    branch = branch_of(registry)
    execute(url, *disarm(url), "DELETE FROM decisions WHERE seq > 2", "UPDATE candidates SET state = 'pending'")
    eve = Ledger(url)
    eve.approve(bad, actor="ann", reason="good")
    forged = eve.decisions()[-1][1]
    told = f"decisions-{forged.seq:08d}-{forged.hash}.json"
    stream = [f"commit {branch}", "committer eve <eve@example.org> 1 +0000", f"data {len(told)}", told]
    stream += [f"from {branch}^0", "deleteall", f"M 100644 inline {told}", "data 2", "{}", ""]
    command = ["git", "-C", str(registry), "fast-import", "--quiet"]
    subprocess.run(command, input="\n".join(stream), text=True, check=True)
    assert len(names(registry)) == 1
    for ask in (ledger.verify, lambda: require_approved(ledger, bad, {})):
        with pytest.raises(DataError, match=r"entry 3 of its decisions, which branch .* is (another one now|gone)"):
            ask()


class TestRemote:
    """Registries that are clones of a common one."""

    @pytest.fixture
    def bare(self, registry: Path, tmp_path: Path) -> Path:
        bare = tmp_path / "server.git"
        subprocess.run(["git", "clone", "-q", "--bare", str(registry), str(bare)], check=True)
        return bare

    def clone(self, bare: Path, name: str) -> Path:
        subprocess.run(["git", "clone", "-q", str(bare), str(bare.with_name(name))], check=True)
        return bare.with_name(name)

    def test_heads_of_two_machines_meet_there(self, url: str, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ours, theirs = self.clone(bare, "ours"), self.clone(bare, "theirs")
        first = submit(opened(url, ours), "first")
        second = submit(opened(url, theirs), "second")
        opened(url, ours).approve(first.id, actor="ann", reason="good")
        opened(url, theirs).reject(second.id, actor="bob", reason="bad")
        assert len(names(bare)) == 4
        git(bare, "fsck", "--strict")
        # Who may write to the ledger and to one clone meets the other's heads.
        execute(url, *disarm(url), "DELETE FROM decisions WHERE seq > 3")
        execute(url, f"UPDATE candidates SET state = 'pending' WHERE id = '{second.id}'")
        git(theirs, "update-ref", "-d", branch_of(theirs))
        shutil.rmtree(theirs / ".git" / "refs" / "ifas")
        monkeypatch.setattr(heads, "_asked", {})
        with pytest.raises(DataError, match="entry 4 of its decisions, which branch"):
            opened(url, theirs).verify()

    def test_a_registry_by_its_url(self, url: str, bare: Path, tmp_path: Path) -> None:
        where = f"file://{bare}"
        rejected(opened(url, where))
        assert len(names(bare)) == 4
        shutil.rmtree(tmp_path / "home")  # as on another machine
        execute(url, *disarm(url), "DELETE FROM decisions WHERE seq > 2", "UPDATE candidates SET state = 'pending'")
        heads._asked.clear()
        with pytest.raises(DataError, match="entry 3 of its decisions"):
            opened(url, where).verify()

    def test_a_remote_that_is_away_gets_them_later(
        self, url: str, bare: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ours = self.clone(bare, "ours")
        bare.rename(bare.with_name("hidden"))
        bad = rejected(opened(url, ours))
        said = capsys.readouterr().err
        assert "its remote can't be asked" in said
        assert "kept here only" in said
        assert len(names(ours)) == 4
        bare.with_name("hidden").rename(bare)
        heads._asked.clear()
        opened(url, ours).verify()
        submit(opened(url, ours), "later")
        assert len(names(bare)) == 5
        assert opened(url, ours).get(bad).state == "rejected"

    def test_a_remote_that_refuses_pushes_is_said(
        self, url: str, bare: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ours = self.clone(bare, "ours")
        hook = bare / "hooks" / "pre-receive"
        hook.write_text("#!/bin/sh\necho no heads here, please >&2\nexit 1\n")
        hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
        assert submit(opened(url, ours)).state == "pending"
        assert "no heads here, please" in capsys.readouterr().err
        assert len(names(ours)) == 1

    def test_a_server_that_hangs_is_left_in_time(
        self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(heads, "ANSWER_S", 1.0)
        with socket.create_server(("127.0.0.1", 0)) as server:  # it takes connections, and says nothing
            begin = time.monotonic()
            ledger = opened(url, f"http://127.0.0.1:{server.getsockname()[1]}/registry.git")
            rejected(ledger)
            assert time.monotonic() - begin < 20  # of a loaded machine; it is asked once
        assert "no answer within 1 s" in capsys.readouterr().err


def test_a_hook_s_environment_does_not_lead_elsewhere(
    url: str, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_registry(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    submit(opened(url, registry))
    del os.environ["GIT_DIR"]
    assert len(names(registry)) == 1
    assert not git(other, "for-each-ref", "refs/heads/ifas-ledger")


def test_a_ledger_is_called_the_same_wherever_it_is_used_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that the ledger itself holds, which who writes it anew could change; and no password."""

    def name(url: str, **gate: str) -> str:
        return ledger_name(config(url, "r", **gate))

    assert name("postgresql://ann:secret@db:5432/ledger") == name("postgresql+psycopg://bob@db/ledger")
    assert "secret" not in name("postgresql://ann:secret@db:5432/ledger")
    assert name("postgresql://db/one") != name("postgresql://db/two")
    assert name("sqlite:///x.db") != name("sqlite:///y.db")
    here = [name("sqlite:////x.db"), name("postgresql://localhost/one"), name("postgresql:///one?host=/run/pg")]
    assert name("sqlite:////x.db", ledger_id="prod") == name("sqlite:////y.db", ledger_id="prod") == "prod"
    monkeypatch.setattr("platform.node", lambda: "another-machine")
    there = [name("sqlite:////x.db"), name("postgresql://localhost/one"), name("postgresql:///one?host=/run/pg")]
    assert not set(here) & set(there)
