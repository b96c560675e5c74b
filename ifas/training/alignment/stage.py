"""The second stage from end to end: mine answers, correct them, train on, measure, and keep the result or not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.claims import Cues
from ifas.core.config import AlignConfig, ModelConfig, TrainConfig
from ifas.core.files import replacing, sha256_json, write_json
from ifas.core.manifest import ImageSource
from ifas.core.progress import Progress, emit
from ifas.training.alignment.examples import Example, faces, measurable, minable
from ifas.training.alignment.mixture import correctives, mixture, yes_share
from ifas.training.curve import CURVE_FILE
from ifas.training.driver import train
from ifas.training.job import Row, rows_of, weights_hash
from ifas.training.record import TRAINING_FILE

if TYPE_CHECKING:
    import pandas as pd

    from ifas.training.alignment.answers import Answer, Respondent

ALIGNMENT_FILE = "alignment.json"
ALIGNMENT_CURVE_FILE = "alignment_curve.jsonl"
ANSWERS_FILE = "answers.jsonl"


def align(
    config: AlignConfig,
    model_config: ModelConfig,
    train_config: TrainConfig,
    rows: pd.DataFrame,
    dev: pd.DataFrame,
    images: ImageSource,
    cues: Cues,
    *,
    held_out: Collection[str],
    first: Path,
    work: Path,
    out: Path,
    run_name: str,
    beside: str = "",
) -> dict[str, Any]:
    """Continues the training of the model in `first` on corrections of its own answers, and writes `out`.

    `out` is the second stage's model where its verdicts are not worse, else the first one; `training.json` and the
    curve stay those of the first stage, and `alignment.json` beside them says what was found. After a kill the next
    call continues: mined answers and checkpoints stay in `work`.

    Args:
        config, model_config, train_config: the second stage trains as the first did, with the steps and learning rates
            of `config`.
        rows: what the first stage was trained on; only these images are mined.
        dev: development rows of the source domains; before and after are measured on them.
        images: where the bytes come from; goes to the workers by pickle.
        cues: what specialists measure, by name.
        held_out: sample ids of every image outside of the train split.
        first: model directory of the first stage.
        work, beside, run_name: see `driver.train`.
        out: model directory, written whole or not at all.

    Returns:
        What `alignment.json` holds.

    Raises:
        DataError: an image to mine is not of the train split, or is in another split as well; or one can't be read.
        TrainingError, TrainingNeedsSpace: of the second training.
    """
    examples = minable(rows, held_out, config.images)
    judged = measurable(dev, set(rows["sample_id"].astype(str)), config.dev_images)
    mined = list(zip(examples, mine(config, first, examples, images, work), strict=True))
    turns, errors = correctives(mined, cues, most=config.turns)
    found: dict[str, Any] = {
        "mined": {"pictures": len(mined), "answers": sum(len(said) for _, said in mined), "errors": errors},
        "turns": {"count": len(turns), "yes_share": yes_share([one.turn for one in turns])},
    }
    unused = ""
    if not turns:
        unused = "the sampled answers held no error that label and evidence can correct"
    elif len({example.subject for example in judged}) < 2:
        unused = "the source domains have fewer than two development subjects to measure it on"
    if unused:
        return _write({**found, "kept": False, "why": unused}, first, None, out)
    second = work / "second"
    taught = mixture(
        rows_of(rows),
        [one.row() for one in turns],
        balance=train_config.balance,
        weighted=train_config.domain_balance,
    )
    record = continued(
        *(config, model_config, train_config, taught, images),
        base=first,
        work=work,
        beside=beside,
        out=second,
        run=run_name,
    )
    from ifas.training.alignment import report

    before, after = (_greedy(folder, judged, images) for folder in (first, second))
    compared = report.compare(judged, before, after, cues, resamples=config.bootstrap, seed=config.seed)
    kept, why = report.keep(compared, config.margin)
    found |= {
        "kept": kept,
        "why": why,
        "dev": {"pictures": len(judged), "subjects": len({example.subject for example in judged})},
        "scores": compared,
        "captions": report.reference(judged, cues),
        "training": record,
    }
    return _write(found, first, second, out)


def continued(
    config: AlignConfig,
    model_config: ModelConfig,
    train_config: TrainConfig,
    rows: tuple[Row, ...],
    images: ImageSource,
    *,
    base: Path,
    work: Path,
    out: Path,
    run: str,
    beside: str = "",
) -> dict[str, Any]:
    """Trains on from a model directory; returns the training record."""
    settings = second_stage(config, model_config, train_config)
    name = f"{run}-align"
    record = train(*settings, rows, images, work=work, beside=beside, out=out, run_name=name, base=base)
    return record.model_dump(mode="json")


def second_stage(
    config: AlignConfig, model_config: ModelConfig, train_config: TrainConfig
) -> tuple[ModelConfig, TrainConfig]:
    """Configurations of the second stage: other steps and learning rates, and draws by the mixture's weights alone."""
    parts = {
        name: part.model_copy(update={"lr": part.lr * config.lr_factor})
        for name in ("vision", "connector", "language")
        for part in [getattr(model_config, name)]
    }
    steps = {"steps": config.steps, "balance": False, "domain_balance": True, "seed": train_config.seed + 1}
    return model_config.model_copy(update=parts), train_config.model_copy(update=steps)


def mine(
    config: AlignConfig, model: Path, examples: Sequence[Example], images: ImageSource, work: Path
) -> list[list[Answer]]:
    """Sampled answers of the model to each image. They are kept in `work`, and made only once."""
    from ifas.training.alignment.answers import Answer

    ids = [example.known.sample_id for example in examples]
    asked = config.model_dump(include={"samples", "temperature", "seed"})
    key = sha256_json([asked, ids, weights_hash(model)])
    file = work / f"{key[:12]}-{ANSWERS_FILE}"
    if not file.is_file():
        progress = Progress("train", total=len(examples), unit="pictures mined")
        said = _respondent(model).sample(
            faces(examples, images),
            ids,
            draws=config.samples,
            temperature=config.temperature,
            seed=config.seed,
        )
        with replacing(file) as beside, beside.open("w", encoding="utf-8") as lines:
            for sample_id, answers in zip(ids, said, strict=True):
                lines.write(json.dumps({"sample_id": sample_id, "answers": answers}) + "\n")
                progress.advance()
    with file.open(encoding="utf-8") as lines:
        return [[Answer(*answer) for answer in json.loads(line)["answers"]] for line in lines]


def _greedy(model: Path, examples: Sequence[Example], images: ImageSource) -> list[Answer]:
    progress = Progress("train", total=len(examples), unit="answers compared")
    answers = []
    for answer in _respondent(model).greedy(faces(examples, images)):
        answers.append(answer)
        progress.advance()
    return answers


def _respondent(model: Path) -> Respondent:
    import torch

    from ifas.model.build import load
    from ifas.training.alignment.answers import Respondent

    device = "cuda" if torch.cuda.is_available() else "cpu"
    made, processor = load(model, dtype=torch.float32 if device == "cpu" else None)
    return Respondent(made.to(device), processor)


def _write(found: dict[str, Any], first: Path, second: Path | None, out: Path) -> dict[str, Any]:
    """The kept model in `out`, with the records of both stages."""
    emit("note", "train", text=f"second stage {'kept' if found['kept'] else 'not kept'}: {found['why']}")
    records = shutil.ignore_patterns(TRAINING_FILE, CURVE_FILE)
    with replacing(out) as beside:
        shutil.copytree(second if second and found["kept"] else first, beside, ignore=records)
        for name in (TRAINING_FILE, CURVE_FILE):
            shutil.copy(first / name, beside / name)
        if second:
            shutil.copy(second / CURVE_FILE, beside / ALIGNMENT_CURVE_FILE)
        write_json(beside / ALIGNMENT_FILE, found)
    return found
