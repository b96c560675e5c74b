"""Images and captions of a world, made once and kept.

A world is rendered per seed, with train, dev and test people in every domain. General captions are made once per world;
Algorithm 1 runs once per world and target, since only source domains may shape a caption.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.learning.settings import Single, Study, config_of
from ifas.core.files import replacing
from ifas.core.manifest import read_manifest

if TYPE_CHECKING:
    import pandas as pd


def world_folder(work: Path, seed: int) -> Path:
    """The packed dataset of a seed."""
    return work / f"world-{seed}" / "dataset"


def captions_folder(work: Path, seed: int, target: str) -> Path:
    """The captioned training rows of a seed and a target."""
    return work / f"world-{seed}" / f"captions-without-{target}"


def make_world(work: Path, study: Study, seed: int, jobs: int) -> None:
    """Renders and packs the world of a seed, and makes the general captions of its training rows."""
    from ifas.captioning.captioners import general_captioner
    from ifas.captioning.parts import local_parts, shards_of
    from ifas.data.pack import pack
    from ifas.data.shards import ShardImages
    from ifas.faces.finder import Finder
    from ifas.simulator import make_demo

    folder = world_folder(work, seed)
    if not folder.is_dir():
        raw = folder.parent / "raw"
        make_demo(raw, seed=seed, subjects=study.subjects, workers=jobs, sources=study.domains)
        pack("folder", raw, folder, name="learning")
    general = folder.parent / "general"
    if not general.is_dir():
        config = config_of(study, Single(seed, study.domains[0], next(iter(study.arms))))
        rows = _training(folder)
        with replacing(general) as beside:
            beside.mkdir()
            shards = [rows for _, _, rows in shards_of(rows, config.caption.samples)]
            captioner, finder = general_captioner(config.caption), Finder(config.model.faces)
            for _ in local_parts(shards, ShardImages(folder), captioner, config.caption, beside, finder):
                pass


def make_captions(work: Path, study: Study, seed: int, target: str) -> None:
    """Algorithm 1 on the training rows of all domains but the target."""
    from ifas.captioning.scf import run_scf
    from ifas.data.shards import ShardImages
    from ifas.faces.finder import Finder

    out = captions_folder(work, seed, target)
    if out.is_dir():
        return
    folder = world_folder(work, seed)
    config = config_of(study, Single(seed, target, next(iter(study.arms))))
    rows = _training(folder)
    rows = rows[rows["domain"] != target].reset_index(drop=True)
    scratch = out.with_name(f".{out.name}.work")
    # `run_scf` goes on behind the shards that it finds captioned, and clears its work folder in the end.
    shutil.copytree(folder.parent / "general", scratch / "captions", dirs_exist_ok=True)
    sources = config.protocol.source_domains
    finder = Finder(config.model.faces)
    run_scf(rows, ShardImages(folder), config.caption, source_domains=sources, out=out, work=scratch, finder=finder)
    shutil.rmtree(scratch)


def judged_rows(folder: Path, target: str) -> pd.DataFrame:
    """What is judged: source dev rows (threshold), source test rows, and, as test rows, all images of the target by
    people whom no training image shows.

    The target's dev people are among the sources' dev people, so they had a part in the threshold, a single number.
    """
    rows = read_manifest(folder)
    rows = rows[rows["split"] != "train"].reset_index(drop=True)
    rows.loc[rows["domain"] == target, "split"] = "test"
    return rows


def _training(folder: Path) -> pd.DataFrame:
    rows = read_manifest(folder)
    return rows[rows["split"] == "train"].reset_index(drop=True)
