"""What a step is, and the table of all steps in the order of the DAG."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ifas.core.config import RunConfig
from ifas.core.errors import unknown_key
from ifas.core.records import Lineage, StepResult
from ifas.core.storage import unpinned
from ifas.steps.code import Code, code_of


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a step knows of its run beside config and inputs."""

    run_id: str
    work: Path = field(metadata={"about": "scratch folder that survives a crash; same inputs, same folder"})
    lineage: Lineage
    lineage_out: Path = field(metadata={"about": "where the lineage with this step's entry will be"})
    failed: Path = field(metadata={"about": "where a failing step may leave what a person should read"})
    origins: Mapping[str, str] = field(
        default_factory=dict, metadata={"about": "input -> pinned URI that other machines can fetch it from"}
    )
    uris: Mapping[str, str] = field(
        default_factory=dict, metadata={"about": "output, or `lineage` -> URI where other machines will find it"}
    )
    uri: str = field(default="", metadata={"about": "like `work`, where other machines find it; empty: nowhere"})

    def place(self, name: str, path: Path) -> str:
        """Where an input is found later: its pinned URI, or its path, which only this machine knows."""
        return self.origins.get(name) or str(path.absolute())

    def origin(self, name: str) -> str:
        """URI of an input, without its pin; empty where it is a local path."""
        return unpinned(self.origins.get(name, ""))[0]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A node of the DAG.

    A cached result depends on the inputs, on `sections` of the config, on the code that the step's module imports and
    on its `identity`.
    """

    name: str
    about: str
    sections: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    cached: bool = True

    def run(
        self, config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context
    ) -> StepResult:
        """Runs the step: reads only `inputs`, writes only `outputs` (and scratch in `context.work`)."""
        run: Callable[..., StepResult] = self._module().run
        return run(config, inputs, outputs, context)

    def permit(self, config: RunConfig) -> None:
        """Raises where such a run must not be, whether the step would run or a result of it be reused."""
        getattr(self._module(), "permit", lambda _config: None)(config)

    def identity(self, config: RunConfig, inputs: Mapping[str, str]) -> dict[str, Any]:
        """What else the result depends on, e.g. the commit that a revision names.

        Args:
            inputs: SHA-256 of each input.
        """
        found: dict[str, Any] = getattr(self._module(), "identity", lambda _config, _inputs: {})(config, inputs)
        return found

    def code(self) -> Code:
        """The code that the result depends on, without the modules in `IN_IDENTITY`: `identity` covers those, or they
        decide nothing of the result."""
        return code_of(f"ifas.steps.{self.name}", without=getattr(self._module(), "IN_IDENTITY", ()))

    def _module(self) -> Any:
        return importlib.import_module(f"ifas.steps.{self.name}")


_ALL = (
    Step(
        name="ingest",
        about="fetch a dataset revision from the registry and check every hash",
        sections=("ingest",),
        inputs=(),
        outputs=("dataset",),
    ),
    Step(
        name="caption",
        about="spoof-aware captioning and filtering",
        sections=("caption", "protocol", "model.faces"),
        inputs=("dataset",),
        outputs=("captions",),
    ),
    Step(
        name="validate",
        about="rules on the captioned manifest",
        sections=("validation", "protocol", "model"),
        inputs=("dataset", "captions"),
        outputs=("validation",),
    ),
    Step(
        name="train",
        about="fine-tune with the lopsided loss (Ray Train, DeepSpeed)",
        sections=("model", "train", "align", "protocol"),
        inputs=("dataset", "captions", "validation"),
        outputs=("model",),
    ),
    Step(
        name="evaluate",
        about="cross-domain metrics at a frozen threshold, report",
        sections=("evaluate", "protocol", "model.vision.tune"),
        inputs=("dataset", "captions", "model"),
        outputs=("evaluation",),
    ),
    Step(
        name="gate",
        about="policy decision against limits and the champion",
        sections=("gate",),
        inputs=("dataset", "captions", "model", "evaluation"),
        outputs=("candidate",),
        cached=False,
    ),
    Step(
        name="approve",
        about="approval state of the candidate; denied by default",
        sections=("gate", "approve"),
        inputs=("candidate",),
        outputs=("approval",),
        cached=False,
    ),
    Step(
        name="package",
        about="Bento and model card of an approved candidate",
        sections=("package", "model"),
        inputs=("model", "evaluation", "approval"),
        outputs=("bento",),
        cached=False,
    ),
)

STEPS: dict[str, Step] = {step.name: step for step in _ALL}


def step(name: str) -> Step:
    """The step called `name`; ConfigError lists the known ones."""
    if name not in STEPS:
        raise unknown_key("step", name, STEPS)
    return STEPS[name]
