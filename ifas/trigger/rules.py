"""The trigger's file: who may send which events, and which runs they start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ifas.core.config import RunConfig, configured, first_problem
from ifas.core.errors import ConfigError, IfasError
from ifas.trigger.events import TYPES, Data, Envelope

Label = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]
#: Arguments of each pipeline beside the configuration and the run's name.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "retrain": (),
    "release": ("candidate", "model", "evaluation", "lineage"),
}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sender(_Section):
    """Who may send events."""

    secret: str = Field(pattern="^[A-Z][A-Z0-9_]*$", description="environment variable with the sender's secret")
    source: str = Field(min_length=1, description="the CloudEvents source that is the sender's")
    types: tuple[str, ...] = Field(min_length=1)


class Rule(_Section):
    """Which run events start, and how often at most."""

    events: tuple[str, ...] = Field(min_length=1, description="types of events")
    run: Literal["retrain", "release"]
    config: str = Field(description="profile, or a YAML file beside this one")
    set: dict[str, Any] = Field(default={}, description="keys of the configuration -> values")
    parameters: dict[str, str] = Field(default={}, description="keys of the configuration -> fields of the event")
    arguments: dict[str, str] = Field(default={}, description="arguments of the pipeline -> fields of the event")
    cooldown_hours: float = Field(default=6, ge=0, le=24 * 366, description="between two runs on one thing")
    runs_per_day: int = Field(default=4, ge=1, le=1000, description="budget: of this rule, in any 24 hours")


class Clients(_Section):
    """How many requests each address may send; more get 429."""

    per_second: float = Field(default=50, ge=0.01, le=100_000)
    burst: int = Field(default=200, ge=1, le=100_000, description="at once, after a pause")


class Trigger(_Section):
    """The whole file."""

    experiment: str = Field(default="ifas", min_length=1)
    senders: dict[Label, Sender] = Field(min_length=1)
    rules: dict[Label, Rule] = Field(min_length=1)
    clients: Clients = Clients()
    keep_days: int = Field(
        default=400, ge=7, le=3660, description="events that are decided, and decisions, are deleted after that"
    )

    @model_validator(mode="after")
    def _check(self) -> Trigger:
        named = {kind for sender in self.senders.values() for kind in sender.types}
        named |= {kind for rule in self.rules.values() for kind in rule.events}
        if unknown := sorted(named - set(TYPES)):
            raise ValueError(f"type {unknown[0]} is not known; known are {', '.join(TYPES)}")
        longest = max(rule.cooldown_hours for rule in self.rules.values())
        if longest > 24 * self.keep_days:
            raise ValueError(f"keep_days: {self.keep_days} days are shorter than a cool-down, {longest:g} hours")
        taken: set[str] = set()
        for name, rule in self.rules.items():
            if twice := sorted(taken & set(rule.events)):
                raise ValueError(f"{twice[0]} has two rules; the second is {name}")
            taken |= set(rule.events)
            for field in (*rule.parameters.values(), *rule.arguments.values()):
                for kind in rule.events:
                    if field not in TYPES[kind].model_fields:
                        raise ValueError(f"rules.{name}: {kind} has no field {field}")
                    if not TYPES[kind].model_fields[field].is_required():
                        raise ValueError(f"rules.{name}: an event {kind} may lack the field {field}")
            if set(rule.arguments) != set(ARGUMENTS[rule.run]):
                raise ValueError(f"rules.{name}.arguments: {rule.run} takes {', '.join(ARGUMENTS[rule.run]) or 'none'}")
        return self

    def rule_of(self, kind: str) -> tuple[str, Rule] | None:
        """Name and rule for events of a type."""
        return next(((name, rule) for name, rule in self.rules.items() if kind in rule.events), None)

    def may_send(self, sender: str, envelope: Envelope) -> bool:
        """Whether this sender may send events of that source and type."""
        allowed = self.senders[sender]
        return envelope.source == allowed.source and envelope.type in allowed.types


def load(file: Path) -> Trigger:
    """The trigger's file, checked: every rule's configuration can be made.

    Raises:
        ConfigError: it can't be used; the message names what in it.
    """
    import yaml

    try:
        trigger = Trigger.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise ConfigError(f"{file}: {first_problem(error)}", "see docs/triggers.md") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: {' '.join(str(error).split())}", "name the trigger's file") from error
    rules = {
        name: rule.model_copy(update={"config": _beside(file, rule.config)}) for name, rule in trigger.rules.items()
    }
    for name, rule in rules.items():
        try:
            example(rule)
        except IfasError as error:
            raise ConfigError(f"{file}: rules.{name}: {error.what}", error.fix) from error
    return trigger.model_copy(update={"rules": rules})


def example(rule: Rule) -> RunConfig:
    """The configuration of a run that the rule starts, with a word in place of each value of an event."""
    return configured(rule.config, {**rule.set, **dict.fromkeys(rule.parameters, "example")})


def _beside(file: Path, config: str) -> str:
    beside = file.parent / config
    return str(beside) if beside.is_file() else config


def settings(rule: Rule, data: Data) -> tuple[RunConfig, dict[str, str]]:
    """Configuration and further arguments of the run that an event starts."""
    values = {key: getattr(data, field) for key, field in rule.parameters.items()}
    arguments = {name: str(getattr(data, field)) for name, field in rule.arguments.items()}
    return configured(rule.config, {**rule.set, **values}), arguments
