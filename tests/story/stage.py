"""Where the story is played: its folder, its people and their keys, and the commands of `ifas` as processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ifas.core.config import load
from ifas.core.files import read_json
from ifas.core.records import LINEAGE_FILE, METRICS_FILE
from ifas.steps.contract import STEPS
from ifas.steps.execute import LINEAGE
from ifas.steps.folder import output_of
from tests.drills.chain import Ended, Failed, Place
from tests.unit.promotion.reviewers import Keys

HERE = Path(__file__).parent
PRODUCT, DATASET = "door", "door"
#: Seconds that a command may take on a busy machine; the longest trains.
PATIENCE = 3600.0
#: The profile of the demo, with less of what the story does not tell.
SETTINGS = (
    f"ingest.dataset={DATASET}",
    f"gate.product={PRODUCT}",
    "gate.policy=null",
    "gate.submitter=sam",
    "approve.by_policy=false",
    "train.steps=200",
    "evaluate.explain=gallery",
    "evaluate.robustness.images=0",
)


class Stage:
    """A registry, a ledger and a page's database below a folder; commands run there.

    Public keys are of the administrator `ada`, of the reviewer `rita`, and of the review page, which speaks for her.
    """

    def __init__(self, root: Path, seed: int = 0) -> None:
        self.root = root.resolve()
        for name in ("keys", "runs"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.registry, self.keys = self.root / "registry", Keys(self.root / "keys")
        self.config = self.root / "config.yaml"
        self.place = Place(self.root, self.config)
        settings = load(
            "laptop",
            [
                *SETTINGS,
                f"train.seed={seed}",
                f"ingest.registry={self.registry}",
                f"gate.ledger={self.place.ledger}",
                f"gate.admin_key={self.public('ada')}",
                f"review.database=sqlite:///{self.root / 'review.db'}",
                f"review.key={self.root / 'keys' / 'cookies.key'}",
                f"review.signing_key={self.keys.private('page')}",
            ],
        )
        self.config.write_text(json.dumps(settings.model_dump(mode="json")))
        self.protocol = settings.protocol

    def public(self, name: str) -> Path:
        """The file with somebody's public key."""
        return Path(self.keys.private(name)).with_suffix(".pub")

    def ifas(self, *words: object, codes: tuple[int, ...] = (0,)) -> Ended:
        """Runs `ifas` to its end. Raises Failed where it ends with another code."""
        return self.place.start([str(word) for word in words]).ended(PATIENCE).require(*codes)

    def data(self, verb: str, *words: object) -> Ended:
        """`ifas data VERB` at the registry."""
        return self.ifas("data", verb, *words, "--registry", self.registry)

    def run(self, codes: tuple[int, ...] = (0,)) -> tuple[Path, Ended]:
        """`ifas run`: the run's folder, and how it ended."""
        runs = self.root / "runs"
        ended = self.ifas("run", "-c", self.config, "--runner", "process", "--runs", runs, codes=codes)
        return (runs / "latest").resolve(), ended

    def steps(self, run: str, names: tuple[str, ...], **inputs: Path) -> Path:
        """`ifas step` of each: the folder with its outputs, and the lineage as a run's folder has it.

        Args:
            run: name of the folder.
            inputs: those that no step here makes.
        """
        folder = self.root / "looks" / run
        for name in names:
            step = STEPS[name]
            words = ["step", name, "-c", str(self.config), "--run-id", run]
            known = {one: folder / one for one in step.inputs} | inputs
            known |= {LINEAGE: folder / LINEAGE_FILE} if (folder / LINEAGE_FILE).exists() else {}
            for one in (*step.inputs, LINEAGE):
                words += ["--input", f"{one}={known[one]}"] if one in known else []
            for one in (*step.outputs, LINEAGE):
                words += ["--output", f"{one}={folder / (LINEAGE_FILE if one == LINEAGE else one)}"]
            self.ifas(*words)
        return folder

    def candidate(self, run: Path) -> dict[str, Any]:
        """What the gate wrote of a run's candidate. Raises Failed where the run did not come to it."""
        found = output_of(run / "artifacts", "gate", "candidate")
        if found is None:
            raise Failed(f"run {run} has no candidate")
        return dict(read_json(found))

    def metrics(self, folder: Path) -> dict[str, Any]:
        """The figures of an evaluation or of a run."""
        return dict(read_json(folder / METRICS_FILE))

    def show(self, candidate: str) -> dict[str, Any]:
        """`ifas show`: the candidate with its history."""
        shown = self.ifas("show", candidate, "-c", self.config).text
        return dict(json.loads(shown[shown.index("{") :]))
