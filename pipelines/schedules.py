"""Schedules as code: YAML files are applied to KFP's recurring runs.

KFP can't change a recurring run. A changed one is made anew, disabled; then the old one is disabled and the new one
enabled, so that there are never two that start runs, and a call that was killed in between is finished by the next.

A recurring run owns the workflows of its runs: Kubernetes ends those that are not finished when it is deleted. So it is
only disabled while it has such runs, and deleted by a later call.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from ifas_pipelines.remote import EQUALS, Kfp, compile_to
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ifas.core.config import ClusterConfig, RunConfig, configured, first_problem
from ifas.core.errors import ConfigError, IfasError, LaunchError
from ifas.core.files import sha256_json

#: Begins the description of a recurring run that is ours; what it was made from follows.
MARK = "made by `ifas schedule`, sha256="
#: States of runs that have no workflow at work.
FINISHED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
#: Field of KFP's cron -> its smallest and largest number.
FIELDS = {
    "second": (0, 59),
    "minute": (0, 59),
    "hour": (0, 23),
    "day": (1, 31),
    "month": (1, 12),
    "day of week": (0, 6),
}
_PART = re.compile(r"(?:[*?]|(\d+)(?:-(\d+))?)(?:/([1-9]\d*))?")


class Schedule(BaseModel):
    """A schedule file. Its name is the file's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: Literal["retrain"]
    cron: str = Field(description="KFP's six fields: second, minute, hour, day, month, day of week")
    config: str = Field(description="profile, or a YAML file beside this one")
    set: dict[str, Any] = Field(default={}, description="keys of the configuration -> values")
    experiment: Annotated[str, Field(min_length=1)] = "ifas"
    enabled: bool = True

    @field_validator("cron")
    @classmethod
    def _check_cron(cls, cron: str) -> str:
        fields = cron.split()
        if len(fields) != len(FIELDS):
            # With five, KFP reads the minute as the second, and so on.
            raise ValueError(f"{cron!r} does not have KFP's six fields: {', '.join(FIELDS)}")
        for (name, (low, high)), value in zip(FIELDS.items(), fields, strict=True):
            for part in value.split(","):
                match = _PART.fullmatch(part)
                if not match or not all(low <= int(number) <= high for number in match.groups()[:2] if number):
                    raise ValueError(f"{part!r} is no {name} from {low} to {high}")
        return cron


@dataclass(frozen=True)
class Request:
    """A schedule file, checked and complete."""

    name: str
    schedule: Schedule
    config: RunConfig

    def sha256(self, ir: str) -> str:
        """Hash of all that the recurring run is made from, but whether it is enabled."""
        said = self.schedule.model_dump(exclude={"config", "set", "enabled"})
        return sha256_json([self.name, said, self.config.model_dump(mode="json"), ir])


@dataclass(frozen=True)
class Change:
    """What was done, or would be, to the recurring run of this name.

    Args:
        waits_for: runs of the old one that are not finished: it is disabled, and deleted by a later call.
    """

    name: str
    action: Literal["create", "replace", "repair", "unchanged", "delete", "not in the files"]
    waits_for: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Listed:
    """A recurring run of ours."""

    name: str
    cron: str
    enabled: bool
    experiment_id: str
    id: str


def read(path: Path) -> list[Request]:
    """The schedules in a YAML file, or in the *.yaml files of a folder.

    Raises:
        ConfigError: a file that is no schedule, a configuration that no run can succeed with, or no file at all.
    """
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"there are no schedules in {path}", "write NAME.yaml there; see infra/schedules")
    return [_read(file) for file in files]


def _read(file: Path) -> Request:
    from ifas.steps import preflight

    try:
        if not NAME.fullmatch(file.stem):
            raise ConfigError(f"{file.stem!r} can't name a schedule", "use up to 40 of a-z, 0-9 and -")
        try:
            tree = yaml.safe_load(file.read_text(encoding="utf-8"))
            schedule = Schedule.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(first_problem(error), "see infra/schedules for an example") from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(" ".join(str(error).split()), "name a schedule file, or a folder of them") from error
        beside = file.parent / schedule.config
        config = configured(str(beside) if beside.is_file() else schedule.config, schedule.set)
        preflight.check_to_send(config)
        return Request(file.stem, schedule, config)
    except IfasError as error:
        raise ConfigError(f"{file}: {error.what}", error.fix) from error


class Schedules(Kfp):
    """The recurring runs at a KFP endpoint.

    Raises:
        ConnectionError: KFP can't be reached, or refuses; its message names the endpoint.
    """

    def listed(self) -> list[Listed]:
        """Those that `apply` made, by name."""
        ours = [
            Listed(
                run.display_name, run.trigger.cron_schedule.cron, _enabled(run), run.experiment_id, run.recurring_run_id
            )
            for run in self._all()
            if _is_ours(run)
        ]
        return sorted(ours, key=lambda listed: listed.name)

    def apply(self, requests: list[Request], *, prune: bool = False, dry_run: bool = False) -> list[Change]:
        """Makes the recurring runs those of `requests`: at most one run of each at a time, missed ones not made up for.

        Args:
            prune: ours that are not in `requests` are deleted.
            dry_run: only says what would change.
        """
        there = self._all(request.config.cluster.namespace for request in requests)
        for request in requests:
            self._check_ours(request.name, there)
        with tempfile.TemporaryDirectory() as scratch:
            changes = [
                self._applied(request, there, _compiled(request, Path(scratch)), dry_run) for request in requests
            ]
        names = {request.name for request in requests}
        for run in there:
            if _is_ours(run) and run.display_name not in names:
                if prune and not dry_run:
                    self._switch([run], on=False)
                waits_for = self._deleted([run], dry_run) if prune else []
                changes.append(Change(run.display_name, "delete" if prune else "not in the files", waits_for))
        return changes

    def delete(self, name: str, *, dry_run: bool = False) -> Change:
        """Deletes the schedule of this name; while a run of it is not finished, it is only disabled."""
        there = [run for run in self._all() if run.display_name == name]
        if not there:
            raise LaunchError(f"there is no schedule {name} at {self.endpoint}", "`ifas schedule list` lists them")
        self._check_ours(name, there)
        if not dry_run:
            self._switch(there, on=False)
        return Change(name, "delete", self._deleted(there, dry_run))

    def _applied(self, request: Request, there: list[Any], package: Path, dry_run: bool) -> Change:
        found = [run for run in there if run.display_name == request.name]
        sha256 = request.sha256(package.read_text())
        kept = next((run for run in found if run.description.endswith(sha256)), None)
        enabled = request.schedule.enabled
        if kept is not None and len(found) == 1 and _enabled(kept) == enabled:
            return Change(request.name, "unchanged")
        new = kept if kept or dry_run else self._made(request, package, sha256)
        old = [run for run in found if run is not new]
        if not dry_run:
            self._switch(old, on=False)
            self._switch([new], on=enabled)
        action: Literal["create", "replace", "repair"] = "repair" if kept else "replace" if found else "create"
        return Change(request.name, action, self._deleted(old, dry_run))

    def _made(self, request: Request, package: Path, sha256: str) -> Any:
        schedule, cluster = request.schedule, request.config.cluster
        with self._asking():
            experiment = self._client.create_experiment(schedule.experiment, namespace=self._of(cluster.namespace))
            return self._client.create_recurring_run(
                experiment_id=experiment.experiment_id,
                job_name=request.name,
                description=MARK + sha256,
                cron_expression=schedule.cron,
                max_concurrency=1,
                no_catchup=True,
                params={"config": request.config.model_dump_json(), "run_id": ""},
                pipeline_package_path=str(package),
                enabled=False,
                pipeline_root=cluster.pipeline_root or None,
                enable_caching=False,
                service_account=cluster.service_account,
            )

    def _all(self, namespaces: Iterable[str] = (ClusterConfig().namespace,)) -> list[Any]:
        asks = [
            partial(self._client.list_recurring_runs, namespace=namespace)
            for namespace in {self._of(name) for name in namespaces}
        ]
        return [run for ask in asks for page in self._pages(ask) for run in page.recurring_runs or []]

    def _pages(self, ask: Callable[..., Any]) -> Iterator[Any]:
        """All pages of one of KFP's lists."""
        token: str | None = ""
        while token is not None:
            with self._asking():
                page = ask(page_token=token, page_size=100)
            yield page
            token = page.next_page_token or None

    def _switch(self, runs: list[Any], *, on: bool) -> None:
        with self._asking():
            for run in runs:
                (self._client.enable_recurring_run if on else self._client.disable_recurring_run)(run.recurring_run_id)

    def _deleted(self, old: list[Any], dry_run: bool) -> list[str]:
        """Deletes the recurring runs, which are disabled, whose runs are all finished; returns the other runs."""
        waits_for = []
        for one in old:
            unfinished = self._unfinished(one)
            waits_for += unfinished
            if not dry_run and not unfinished:
                with self._asking():
                    self._client.delete_recurring_run(one.recurring_run_id)
        return waits_for

    def _unfinished(self, one: Any) -> list[str]:
        wanted = {"predicates": [{"operation": EQUALS, "key": "recurring_run_id", "stringValue": one.recurring_run_id}]}
        ask = partial(self._client.list_runs, filter=json.dumps(wanted), namespace=self._of(one.namespace))
        return [str(run.run_id) for page in self._pages(ask) for run in page.runs or [] if run.state not in FINISHED]

    def _check_ours(self, name: str, there: list[Any]) -> None:
        if any(run.display_name == name and not _is_ours(run) for run in there):
            raise LaunchError(
                f"the recurring run {name} at {self.endpoint} was not made by ifas",
                "give the schedule another name, or delete that recurring run in KFP",
            )


def _is_ours(run: Any) -> bool:
    return (run.description or "").startswith(MARK)


def _enabled(run: Any) -> bool:
    return bool(run.status == "ENABLED")


def _compiled(request: Request, folder: Path) -> Path:
    """The schedule's pipeline, in a file that schedules with equal clusters share."""
    cluster = request.config.cluster.model_dump(mode="json")
    package = folder / f"{sha256_json([request.schedule.pipeline, cluster])}.yaml"
    if not package.exists():
        compile_to(package, request.config, request.schedule.pipeline)
    return package
