"""Checkpoints for any number of ranks: DeepSpeed's universal form, made from one that ZeRO split for its ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ifas.core.errors import TrainingError
from ifas.core.files import remove
from ifas.training.engine import TAG

UNIVERSAL = "universal"


def convert(folder: Path, zero_stage: int) -> None:
    """Makes the universal form beside a checkpoint's files, unless it is there already.

    Args:
        folder: of the checkpoint.
        zero_stage: it was written under.

    Raises:
        TrainingError: DeepSpeed could not convert it; its own words are in the error.
    """
    target = folder / UNIVERSAL
    if target.is_dir():
        return
    beside = folder / f".{UNIVERSAL}.part"
    remove(beside)
    command = [
        *(sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"),
        *("--input_folder", str(folder / TAG), "--output_folder", str(beside)),
        *("--num_extract_workers", "1", "--num_merge_workers", "1"),
    ]
    if zero_stage < 3:
        command.append("--inject_missing_state")
    # The converter must not join this run's process group.
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}
    done = subprocess.run(command, env=kept, capture_output=True, text=True, check=False)
    if done.returncode or not beside.is_dir():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it gave no reason"]
        remove(beside)
        raise TrainingError(
            f"checkpoint {folder} can't be converted for another number of workers: {lines[-1].strip()}",
            "go on with the number of workers that wrote it (progress.json says how many)",
        )
    beside.rename(target)
