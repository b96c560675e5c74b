"""The result of a step, and the hash-chained lineage of a run."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ifas.core.errors import DataError
from ifas.core.files import sha256_json

#: Files that evaluation writes: figures, one row per judged image, one per handled image, and the page for people.
METRICS_FILE = "metrics.json"
CONFIG_FILE = "config.json"
PREDICTIONS_FILE = "predictions.parquet"
ROBUSTNESS_FILE = "robustness.parquet"
#: Test images asked in other ways than by likelihood, where `evaluate.modes` asks any.
MODES_FILE = "modes.parquet"
REPORT_FILE = "report.html"
#: The lineage, in a run's folder and in a Bento.
LINEAGE_FILE = "lineage.json"
#: Files that validation writes for training: images that can't be decoded, one row each; and sampling weights.
UNREADABLE_FILE = "unreadable.parquet"
WEIGHTS_FILE = "sampling_weights.parquet"


class StepResult(BaseModel):
    """What a step did. `facts` are plain JSON values; every number a report or card shows comes from here."""

    model_config = ConfigDict(extra="forbid")

    summary: str = Field(description="one line for a person: what was done, with counts")
    facts: dict[str, Any] = Field(default_factory=dict)


class Usage(BaseModel):
    """What a step used, and its price."""

    model_config = ConfigDict(extra="forbid")

    cpu_hours: float
    gpu_hours: float
    peak_memory_gib: float
    price: float
    currency: str


class LineageEntry(BaseModel):
    """One step of a run. `hash` covers every other field; `previous` is the hash of the entry before."""

    model_config = ConfigDict(extra="forbid")

    step: str
    config: str = Field(description="SHA-256 of the step's part of the configuration")
    code: str = Field(description="SHA-256 of the sources that the step rests on")
    inputs: dict[str, str] = Field(description="input name -> SHA-256 of its content")
    outputs: dict[str, str] = Field(description="output name -> SHA-256 of its content")
    summary: str
    facts: dict[str, Any]
    image: str = Field(description="container image the step ran in, or 'local'")
    started: str = Field(description="ISO 8601, UTC")
    seconds: float
    reused: str = Field(default="", description="why the cached outputs were valid; empty when the step ran")
    usage: Usage | None = Field(default=None, description="None for entries of before there was any")
    previous: str = ""
    hash: str = ""

    def sealed(self, previous: str) -> LineageEntry:
        """This entry, chained to `previous`."""
        entry = self.model_copy(update={"previous": previous, "hash": ""})
        # An entry without usage has the hash that it had when there was none.
        without = {"hash"} if entry.usage else {"hash", "usage"}
        return entry.model_copy(update={"hash": sha256_json(entry.model_dump(exclude=without))})


#: Steps whose settings, code and image are evidence.
EVIDENCE_STEPS = ("ingest", "caption", "validate", "train", "evaluate")


class Lineage(BaseModel):
    """All steps of a run so far, oldest first."""

    model_config = ConfigDict(extra="forbid")

    run_id: str
    entries: list[LineageEntry] = Field(default_factory=list)

    def append(self, entry: LineageEntry) -> Lineage:
        """A new lineage with `entry` appended and chained to the last one."""
        previous = self.entries[-1].hash if self.entries else ""
        return Lineage(run_id=self.run_id, entries=[*self.entries, entry.sealed(previous)])

    def verify(self) -> None:
        """Raises DataError at the first entry whose hash does not fit.

        The hashes hold no secret: if somebody recomputes all of them, the change is not detected.
        """
        previous = ""
        for entry in self.entries:
            if entry.sealed(previous).hash != entry.hash:
                raise DataError(
                    f"lineage of run {self.run_id} was altered at step {entry.step!r}",
                    "do not trust this run; repeat it",
                )
            previous = entry.hash

    def steps_sha256(self) -> str:
        """Hash of how the steps ran that a decision is about: settings, code and image of each up to the evaluation."""
        return sha256_json({e.step: [e.config, e.code, e.image] for e in self.entries if e.step in EVIDENCE_STEPS})

    def of(self, step: str) -> LineageEntry | None:
        """The last entry of a step, or None."""
        return next((e for e in reversed(self.entries) if e.step == step), None)
