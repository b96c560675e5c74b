"""Training on a GPU: every precision and ZeRO stage learns, a killed run goes on, no memory is an error with advice.

The same tests of a CPU are next to this file.
"""

from pathlib import Path

import pytest
import torch
from toy_training import job, picture

from ifas.core.errors import TrainingError
from ifas.core.imaging import decode
from ifas.model.judge import Judge
from ifas.training.curve import CURVE_FILE, read
from ifas.training.job import FACTS_FILE, FINAL, Job
from ifas.training.loop import run

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("alone")]
GPU = "train.gpus_per_worker=1"


class Killed(Exception):
    pass


def losses(made: Job) -> list[float]:
    return [line["loss"] for line in read(made.run / CURVE_FILE)]


@pytest.mark.parametrize(
    ("precision", "stage", "offload", "tune"),
    [
        ("fp32", 0, "none", "full"),
        ("fp32", 2, "none", "lora"),
        ("bf16", 0, "none", "lora"),
        ("bf16", 2, "none", "full"),
        ("bf16", 2, "optimizer", "full"),
        ("bf16", 3, "none", "lora"),
        ("fp16", 1, "none", "full"),
    ],
)
def test_it_learns(tmp_path: Path, precision: str, stage: int, offload: str, tune: str) -> None:
    made = job(
        tmp_path / "r",
        GPU,
        "train.steps=12",
        "train.batch=6",
        "train.augment=false",
        f"model.language.tune={tune}",
        f"train.precision={precision}",
        f"train.zero_stage={stage}",
        f"train.offload={offload}",
    )
    assert run(made) == "finished"
    assert '"device": "cuda:0"' in (made.run / FINAL / FACTS_FILE).read_text()
    curve = losses(made)
    assert min(curve[-3:]) < curve[0]
    assert Judge.load(made.run / FINAL).judge([decode(picture(0))]).shape == (1,)


def test_a_compiled_run_learns_the_same(tmp_path: Path) -> None:
    settings = (GPU, "train.steps=4", "train.zero_stage=2", "model.language.tune=lora", "model.vision.tune=frozen")
    plain, compiled = (job(tmp_path / name, *settings, f"train.compile={name}") for name in ("false", "true"))
    run(plain)
    run(compiled)
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)


@pytest.mark.parametrize("stage", [0, 2])
def test_a_killed_run_goes_on(tmp_path: Path, stage: int) -> None:
    settings = (GPU, f"train.zero_stage={stage}", "train.accumulate=2")
    whole, again = (job(tmp_path / name, *settings) for name in ("whole", "again"))
    run(whole)

    def stop(metrics: dict[str, float]) -> None:
        if metrics["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        run(again, stop)
    assert run(again) == "finished"
    assert losses(again) == pytest.approx(losses(whole), rel=1e-4)


def test_no_memory_names_samples_part_and_what_to_change(tmp_path: Path) -> None:
    made = job(tmp_path / "r", GPU, "train.batch=16", "model.language.shape.intermediate_size=65536")
    torch.cuda.empty_cache()
    share = (torch.cuda.memory_allocated() + 300 * 2**20) / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        with pytest.raises(TrainingError, match=r"out of memory in the .*16 samples of .* tokens") as caught:
            run(made)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "train.batch=8 train.accumulate=2" in caught.value.fix
