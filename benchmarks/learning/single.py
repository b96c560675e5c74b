"""One run in a process of its own: train, judge, measure; `schedule` starts it."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.learning.prepare import captions_folder, judged_rows, make_captions, make_world, world_folder
from benchmarks.learning.settings import Single, Study, config_of, key_of, read_study
from ifas.core.config import RunConfig
from ifas.core.environment import prepare
from ifas.core.files import write_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from ifas.core.manifest import ImageSource
    from ifas.evaluation.predict import JudgeLike
    from ifas.faces.face import Face
    from ifas.faces.finder import Finder

RESULT_FILE, PREDICTIONS_FILE = "result.json", "predictions.parquet"
#: Figures that are kept of a slice of metrics.json.
KEPT = ("auc", "hter", "apcer_pooled", "bpcer", "explanation_agreement", "explanation_medium")


def run_folder(work: Path, study: Study, one: Single) -> Path:
    """Where a run and its result are; the name changes with the run's configuration."""
    return work / "runs" / f"{one.name}-{key_of(study, one)}"


def run(work: Path, study: Study, one: Single) -> dict[str, Any]:
    """Trains and judges; leaves `result.json` and `predictions.parquet` in the run's folder."""
    from ifas.data.shards import ShardImages
    from ifas.evaluation.predict import predict
    from ifas.evaluation.protocol import evaluate

    began = time.monotonic()
    config = config_of(study, one)
    folder = run_folder(work, study, one)
    folder.mkdir(parents=True, exist_ok=True)
    dataset = world_folder(work, one.seed)
    images = ShardImages(dataset)
    judge, facts = JUDGES[study.arms[one.arm].kind](work, study, one, config, images, folder)
    trained = time.monotonic()
    predicted = predict(judge, judged_rows(dataset, one.target), images, config.protocol, config.evaluate).frame
    metrics = evaluate(predicted, config.protocol, config.evaluate)
    predicted.to_parquet(folder / PREDICTIONS_FILE, index=False)
    result = {
        "seed": one.seed,
        "target": one.target,
        "arm": one.arm,
        "key": key_of(study, one),
        "threshold": metrics["threshold"]["value"],
        "dev_auc": dev_auc(predicted),
        "slices": {name: _kept(metrics["slices"][name]) for name in ("target", "source_test")},
        **facts,
        "seconds": {"train": round(trained - began, 1), "judge": round(time.monotonic() - trained, 1)},
    }
    write_json(folder / RESULT_FILE, result)
    return result


def _kept(entries: dict[str, Any]) -> dict[str, Any]:
    return {"n_live": entries["n_live"], "n_spoof": entries["n_spoof"], **{k: entries[k]["value"] for k in KEPT}}


def dev_auc(predicted: pd.DataFrame) -> float:
    """AUC on the images from which the threshold was taken; non-responses have no score."""
    from ifas.evaluation.metrics import auc

    rows = predicted[(predicted["split"] == "dev") & predicted["score"].notna()]
    return auc(rows["score"].to_numpy(dtype="float64"), (rows["label"] == "live").to_numpy(dtype=bool))


def _trained(
    work: Path, study: Study, one: Single, config: RunConfig, images: ImageSource, folder: Path
) -> tuple[JudgeLike, dict[str, Any]]:
    """The product's model, trained by the product's loop with one rank."""
    from ifas.core.manifest import read_manifest
    from ifas.model.judge import Judge
    from ifas.training.attack_prior import measure_prior
    from ifas.training.curve import CURVE_FILE, read
    from ifas.training.job import FINAL, Job, rows_of
    from ifas.training.loop import run as train

    manifest = read_manifest(captions_folder(work, one.seed, one.target), captioned=True)
    manifest = manifest[manifest["face_refused"].isna()]
    manifest = manifest.assign(caption=manifest[study.arms[one.arm].captions])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    job = Job(model=config.model, train=config.train, rows=rows_of(manifest), images=images, run=folder)
    train(job)
    measure_prior(folder / FINAL, _dev(work, one), images)
    judge = Judge.load(folder / FINAL)
    shutil.rmtree(folder / FINAL)
    last = read(folder / CURVE_FILE)[-20:]
    losses = {part: sum(line[part] for line in last) / len(last) for part in ("judgment", "interpretation")}
    return judge, {"training_rows": len(manifest), "loss": losses}


def _dev(work: Path, one: Single) -> pd.DataFrame:
    """Development rows of the source domains."""
    from ifas.core.manifest import read_manifest

    rows = read_manifest(world_folder(work, one.seed))
    return rows[(rows["split"] == "dev") & (rows["domain"] != one.target)]


class Probe:
    """Logistic regression on the frozen tower's pooled features."""

    def __init__(self, pooled: Any, regression: Any, finder: Finder) -> None:
        self.pooled, self.regression, self.finder = pooled, regression, finder

    def find(self, picture: npt.NDArray[np.uint8]) -> Face:
        """The face of an image, found as for the other arms."""
        return self.finder.find(picture)

    def judge(self, faces: Sequence[Face]) -> npt.NDArray[np.float64]:
        """p(bona fide): (B,)."""
        scores: npt.NDArray[np.float64] = self.regression.predict_proba(self.pooled(faces))[:, 1]
        return scores

    def explain(self, faces: Sequence[Face], verdicts: Sequence[bool]) -> list[str]:
        """No explanations."""
        raise NotImplementedError("a logistic regression explains nothing")


def _probe(
    work: Path, study: Study, one: Single, config: RunConfig, images: ImageSource, folder: Path
) -> tuple[JudgeLike, dict[str, Any]]:
    """The probe with the regularisation that is best on source development data; of equals, the strongest."""
    import numpy as np

    from benchmarks.learning.features import Pooled
    from ifas.core.errors import FaceRefused
    from ifas.core.imaging import decode
    from ifas.core.manifest import read_manifest
    from ifas.evaluation.probe import fit
    from ifas.faces.boxes import box_of
    from ifas.faces.finder import Finder

    rows = read_manifest(world_folder(work, one.seed))
    rows = rows[rows["domain"] != one.target]
    pooled = Pooled(config)

    finder = Finder(config.model.faces)

    def of(split: str) -> tuple[Any, Any]:
        chosen = rows[rows["split"] == split]
        faces, live = [], []
        for shard, row, box, label in chosen[["shard", "row", "face_box", "label"]].itertuples(index=False):
            try:
                faces.append(finder.find(decode(images.read(str(shard), int(row))), box_of(box)))
            except FaceRefused:  # left out, as by the other arms
                continue
            live.append(label == "live")
        features = [pooled(faces[i : i + 16]) for i in range(0, len(faces), 16)]
        return np.concatenate(features), np.array(live)

    (x, live), (x_dev, live_dev) = of("train"), of("dev")
    made = fit(x, live, x_dev, live_dev, study.probe_c)
    return Probe(pooled, made.regression, finder), {"training_rows": len(x), "c": made.c}


#: `Arm.kind` -> the judge of a run, and facts about it.
JUDGES = {"model": _trained, "probe": _probe}


def main() -> None:
    """Makes a world, its captions, or a run: whatever the number of arguments names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("target", nargs="?")
    parser.add_argument("arm", nargs="?")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    prepare()
    study = read_study().with_changes(args.set)
    if args.target is None:
        make_world(args.work, study, args.seed, args.jobs)
    elif args.arm is None:
        make_captions(args.work, study, args.seed, args.target)
    else:
        run(args.work, study, Single(args.seed, args.target, args.arm))


if __name__ == "__main__":
    main()
