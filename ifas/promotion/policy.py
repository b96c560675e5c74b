"""The gate's policy: a YAML file of limits on a figure's value, and on its change against the champion.

    name: mine
    rules:
      - {id: worst-attack, metric: apcer_max, slice: target, max: 0.2, reason: ...}
      - {id: no-regression, metric: auc, slice: "spoof_type:*", max_drop: 0.02, missing_champion: pass, reason: ...}

A slice that ends in `:*` stands for every slice of that kind; the rule must hold on each of them. `bound: interval`
limits the pessimistic end of the 95 % interval; `against: NAME` compares with a baseline in place of the champion;
`min_n` and `min_subjects` say on how many pictures and people a figure must rest.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from ifas.core.config import first_problem
from ifas.core.errors import ConfigError, IfasError, unknown_key
from ifas.core.files import sha256_json
from ifas.core.measures import FIXED_SLICES, MEASURES, OF_BASELINES, check_slice, measure

BUILTIN = "builtin:"
#: Of a run whose product is not registered and that names none.
DEFAULT = f"{BUILTIN}demo"

Limit = Literal["max", "min", "max_increase", "max_drop"]

#: Kind of limit -> the direction of the metrics it is for. On other metrics, a better model could fail.
LIMITS: dict[Limit, Literal["lower", "higher"]] = {
    "max": "lower",
    "max_increase": "lower",
    "min": "higher",
    "max_drop": "higher",
}

#: Limits on a change against the champion, or against a baseline.
CHANGES: tuple[Limit, ...] = ("max_increase", "max_drop")
#: Keys that rules did not always have. Where they are not set they are left out, so that a policy keeps its hash.
LATER = ("min_n", "min_subjects", "against")
#: Figures that evaluation never gives an interval.
WITHOUT_INTERVAL = ("acer_not_iso",)


class Rule(BaseModel):
    """One limit. Exactly one of `max`, `min`, `max_increase` and `max_drop` is set; all are shares, 0 to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str = Field(min_length=1)
    metric: str
    slice: str
    reason: str = Field(min_length=1, description="why this limit is there; shown to the reviewer")
    max: float | None = Field(default=None, ge=0, le=1)
    min: float | None = Field(default=None, ge=0, le=1)
    max_increase: float | None = Field(default=None, ge=0, le=1)
    max_drop: float | None = Field(default=None, ge=0, le=1)
    bound: Literal["value", "interval"] = Field(
        default="value",
        description="what the limit binds: the value (or its change), or the pessimistic end of the interval of the "
        "value (or of the paired difference to the champion)",
    )
    min_n: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="pictures that the figure must rest on; of the worst species, those of each",
    )
    min_subjects: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="people that the figure must rest on: pictures of one are not independent",
    )
    missing_champion: Literal["pass", "fail"] = Field(
        default="fail", description="what a change limit says while there is no champion to compare with"
    )
    against: str | None = Field(
        default=None,
        min_length=1,
        max_length=40,
        description="baseline that a change limit compares with, on the same pictures, in place of the champion; a "
        "candidate that was not compared with it fails",
    )

    @property
    def limit(self) -> tuple[Limit, float]:
        """Which limit is set, and its value."""
        return next((kind, value) for kind in LIMITS if (value := getattr(self, kind)) is not None)

    def check(self) -> None:
        """Raises ConfigError for an unknown metric or slice, or a limit that does not fit the metric."""
        measure(self.metric)
        check_slice(self.slice)
        given = [kind for kind in LIMITS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ConfigError(
                f"has {len(given)} limits ({', '.join(given) or 'none'}), one is needed",
                f"set one of {', '.join(LIMITS)}; for two limits write two rules",
            )
        better = MEASURES[self.metric].better
        if LIMITS[given[0]] != better:
            fitting = " or ".join(kind for kind, direction in LIMITS.items() if direction == better)
            raise ConfigError(
                f"sets {given[0]} on {self.metric}, where {better} is better: a better model could fail",
                f"use {fitting}",
            )
        if self.against is not None:
            self._check_against(given[0])
        if self.bound == "interval" and self.metric in WITHOUT_INTERVAL:
            raise ConfigError(
                f"sets bound: interval on {self.metric}, which has no interval: no model could pass",
                "limit its parts, such as apcer_max and bpcer, or leave bound out",
            )

    def _check_against(self, kind: Limit) -> None:
        if kind not in CHANGES:
            raise ConfigError(
                f"sets {kind} against {self.against}: that is no limit on a difference",
                f"use {' or '.join(CHANGES)}, the most that the candidate may be worse than the baseline",
            )
        if self.metric not in OF_BASELINES:
            raise ConfigError(
                f"compares {self.metric} with {self.against}, which evaluation does not",
                f"figures that are compared with baselines: {', '.join(OF_BASELINES)}",
            )
        if self.slice not in FIXED_SLICES and not self.slice.startswith("domain:"):
            raise ConfigError(
                f"compares with {self.against} on {self.slice}, which evaluation does not",
                f"use {', '.join(FIXED_SLICES)}, domain:NAME or domain:*",
            )
        if "missing_champion" in self.model_fields_set:
            raise ConfigError(
                f"sets missing_champion, but compares with baseline {self.against}",
                "leave it out: a candidate that was not compared with the baseline fails",
            )

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = handler(self)
        return {name: value for name, value in tree.items() if value is not None or name not in LATER}


class Policy(BaseModel):
    """All rules; a candidate passes when every rule does."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1)
    about: str = ""
    rules: list[Rule] = Field(min_length=1)

    @property
    def sha256(self) -> str:
        """Hash of the policy's content; comments and layout of the file do not count."""
        return sha256_json(self.model_dump(mode="json"))


def builtin_policies() -> list[str]:
    """Names of the policies that come with ifas."""
    folder = resources.files("ifas.configs.policies")
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def file_of(source: str) -> Path | None:
    """The file that a policy is read from; None for one that comes with ifas."""
    return None if source.startswith(BUILTIN) else Path(source)


def load_policy(source: str) -> Policy:
    """The policy in a YAML file, or `builtin:NAME`.

    Raises:
        ConfigError: no such policy, not YAML, an unknown key, metric or slice, or a limit that makes no sense.
    """
    try:
        policy = Policy.model_validate(_tree(source))
    except ValidationError as error:
        raise ConfigError(
            f"policy {source}: {first_problem(error)}", "compare it with ifas/configs/policies/demo.yaml"
        ) from error
    seen: set[str] = set()
    for rule in policy.rules:
        try:
            rule.check()
        except IfasError as error:
            raise ConfigError(f"policy {source}: rule {rule.id!r}: {error.what}", error.fix) from error
        if rule.id in seen:
            raise ConfigError(f"policy {source}: two rules are called {rule.id!r}", "give each rule an id of its own")
        seen.add(rule.id)
    return policy


def _tree(source: str) -> Any:
    import yaml

    if source.startswith(BUILTIN):
        name = source.removeprefix(BUILTIN)
        if name not in builtin_policies():
            raise unknown_key("builtin policy", name, builtin_policies())
        text = resources.files("ifas.configs.policies").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            known = ", ".join(BUILTIN + name for name in builtin_policies())
            raise ConfigError(f"policy file {source} can't be read: {error}", f"or use one of {known}") from error
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(
            f"policy {source} is not valid YAML: {said}", "compare it with ifas/configs/policies/demo.yaml"
        ) from error
