"""The training loop in this process: it learns, resumes to the bit, and ZeRO stages agree."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_training import ToyImages, job, manifest, picture, runaway

from ifas.core.errors import DataError, TrainingError, TrainingNeedsSpace
from ifas.core.imaging import decode
from ifas.core.taxonomy import media_named
from ifas.faces.face import Face
from ifas.model.build import build, load
from ifas.model.judge import Judge
from ifas.training.batches import Batches
from ifas.training.curve import CURVE_FILE, Curve, read
from ifas.training.engine import AVERAGE_FILE
from ifas.training.job import FINAL, Job, rows_of
from ifas.training.loop import run
from ifas.training.startup import StartLog
from ifas.training.step import StepLosses

pytestmark = pytest.mark.usefixtures("alone")


def trained(made: Job) -> list[int]:
    """Trains; the steps after which it made checkpoints."""
    steps: list[int] = []
    assert run(made, lambda metrics: steps.append(int(metrics["step"]))) == "finished"
    return steps


class Killed(Exception):
    pass


def killed_after(made: Job, step: int) -> None:
    """Trains until the checkpoint after a step has been made."""

    def stop(metrics: dict[str, float]) -> None:
        if metrics["step"] == step:
            raise Killed

    with pytest.raises(Killed):
        run(made, stop)


def weights(made: Job) -> bytes:
    return (made.run / FINAL / "model.safetensors").read_bytes()


def test_it_learns_the_judgment_and_the_interpretation(tmp_path: Path) -> None:
    made = job(
        tmp_path / "r", "train.steps=120", "train.batch=9", "train.checkpoint_every=1000", "model.language.lr=0.01"
    )
    trained(made)
    curve = read(made.run / CURVE_FILE)
    assert [line["step"] for line in curve] == list(range(1, 121))
    assert curve[-1]["judgment"] < 0.35 < curve[0]["judgment"]
    assert curve[-1]["interpretation"] < 0.6 * curve[0]["interpretation"]
    for line in curve:
        assert line["loss"] == pytest.approx(0.7 * line["judgment"] + 0.3 * line["interpretation"])
    judge = Judge.load(made.run / FINAL)
    unseen = range(100, 112)
    scores = judge.judge([Face.whole(decode(picture(i))) for i in unseen])
    live = np.array([i % 3 == 0 for i in unseen])
    assert scores[live].min() > scores[~live].max()
    assert list(judge.processor.attacks) == ["print", "replay"], "what training never showed is not named"
    answers = judge.answer([Face.whole(decode(picture(i))) for i in unseen], threshold=float(scores[live].min()))
    assert [a.spoof_type for a in answers] == [("live", "print", "replay")[i % 3] for i in unseen]
    assert all(media_named(a.text) == ([] if a.live else [a.spoof_type]) for a in answers)


@pytest.mark.parametrize("overrides", [(), ("model.language.tune=lora", "model.connector.dropout=0.2")])
@pytest.mark.parametrize("stage", [0, 2])
def test_resume_equals_uninterrupted(tmp_path: Path, stage: int, overrides: tuple[str, ...]) -> None:
    settings = (f"train.zero_stage={stage}", "train.accumulate=2", *overrides)
    whole = job(tmp_path / "whole", *settings)
    assert trained(whole) == [1, 3]
    again = job(tmp_path / "again", *settings)
    killed_after(again, 3)
    assert trained(again) == []
    assert weights(again) == weights(whole)
    losses = [[line["loss"] for line in read(made.run / CURVE_FILE)] for made in (whole, again)]
    assert losses[0] == losses[1]
    assert StartLog(again).lines() == [{"step": 0, "lost": 0, "workers": 1}, {"step": 3, "lost": 0, "workers": 1}]


@pytest.mark.parametrize("tune", ["full", "alore"])
def test_zero_stages_agree_and_save_the_whole_model(tmp_path: Path, tune: str) -> None:
    curves = {}
    for stage, offload in ((0, "none"), (1, "none"), (2, "optimizer"), (3, "none"), (3, "optimizer")):
        settings = (f"train.zero_stage={stage}", f"train.offload={offload}", f"model.vision.tune={tune}")
        made = job(tmp_path / f"{stage}-{offload}", *settings)
        trained(made)
        curves[stage, offload] = [line["loss"] for line in read(made.run / CURVE_FILE)]
        assert sum(p.numel() for p in load(made.run / FINAL)[0].parameters()) == 119_520
    for curve in curves.values():
        assert curve == pytest.approx(curves[0, "none"], rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        ("train.schedule=one-cycle",),
        ("train.length_window=3",),
        ("train.loaders=3",),
        ("train.average=0.9",),
        ("train.average=0.9", "train.zero_stage=2", "train.offload=optimizer", "train.precision=bf16"),
        ("train.average=0.9", "train.zero_stage=3"),
    ],
)
def test_resume_under_other_settings_equals_uninterrupted(tmp_path: Path, settings: tuple[str, ...]) -> None:
    whole, again = (job(tmp_path / name, *settings) for name in ("whole", "again"))
    trained(whole)
    killed_after(again, 3)
    trained(again)
    assert weights(again) == weights(whole)


def average_of(steps: list[dict[str, torch.Tensor]], most: float) -> dict[str, torch.Tensor]:
    """The average of the weights after each step, from its definition."""
    average = {name: weight.double() for name, weight in steps[0].items()}
    for t, weights_t in enumerate(steps[1:], 2):
        decay = min(most, (1 + t) / (10 + t))
        average = {name: decay * a + (1 - decay) * weights_t[name].double() for name, a in average.items()}
    return average


def weights_after_each_step(made: Job) -> list[dict[str, torch.Tensor]]:
    """Of a run with ZeRO stage 0 to 2 that kept a checkpoint of every step: all but the last."""
    checkpoints = sorted(made.run.glob("checkpoint_*/state/mp_rank_00_model_states.pt"))
    assert len(checkpoints) == made.train.steps - 1
    return [torch.load(file, weights_only=False)["module"] for file in checkpoints]


EVERY = ("train.checkpoint_every=1", "train.keep_checkpoints=9")


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    """The weights after each of six steps."""
    made = job(tmp_path_factory.mktemp("steps") / "r", *EVERY)
    trained(made)
    last = load_file(made.run / FINAL / "model.safetensors")  # without the second name of the tied word embeddings
    return [*({name: weights_t[name] for name in last} for weights_t in weights_after_each_step(made)), last]


@pytest.mark.parametrize(
    ("most", "settings"),
    [
        (0.2, ("train.zero_stage=0",)),
        (0.99, ("train.zero_stage=0",)),
        (0.99, ("train.zero_stage=1",)),
        (0.99, ("train.zero_stage=2", "train.offload=optimizer")),
        (0.99, ("train.zero_stage=3",)),
        (0.99, ("train.zero_stage=3", "train.offload=optimizer")),
    ],
)
def test_the_saved_model_is_the_average_of_the_weights(
    tmp_path: Path, steps: list[dict[str, torch.Tensor]], most: float, settings: tuple[str, ...]
) -> None:
    made = job(tmp_path / "r", f"train.average={most}", *settings)
    trained(made)
    wanted = average_of(steps, most)
    saved = load_file(made.run / FINAL / "model.safetensors")
    assert saved.keys() == wanted.keys()
    # Of a key's bias, no gradient is left but rounding, which Adam blows up to whole steps.
    sound = [name for name in saved if not name.endswith(("key.bias", "k_proj.bias"))]
    for name in sound:
        torch.testing.assert_close(saved[name].double(), wanted[name], rtol=0, atol=1e-5)
    for others in (steps[-1], average_of(steps, 0.99 if most < 0.9 else 0.2)):
        assert max(float((wanted[name] - others[name]).abs().max()) for name in sound) > 3e-5


def test_the_average_is_kept_in_float32_and_does_not_change_the_training(tmp_path: Path) -> None:
    settings = ("train.zero_stage=1", "train.precision=bf16")
    plain, averaged = (
        job(tmp_path / "plain", *settings),
        job(tmp_path / "averaged", *settings, *EVERY, "train.average=0.99"),
    )
    trained(plain)
    trained(averaged)
    losses = [[line["loss"] for line in read(made.run / CURVE_FILE)] for made in (plain, averaged)]
    assert losses[0] == losses[1]
    kept = load_file(averaged.run / "checkpoint_00000005" / AVERAGE_FILE)
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in kept.values())
    wanted = average_of(weights_after_each_step(averaged), 0.99)
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor.double(), wanted[name], rtol=2**-8, atol=1e-4)


def test_the_plain_loss_and_weights_are_trained_on(tmp_path: Path) -> None:
    """The first step's losses differ as the settings say; the parts that are logged do not depend on them."""
    lines = {}
    for name, settings in {
        "lopsided": (),
        "plain": ("train.loss=plain",),
        "weighted": ("train.species_weights={print: 5.0}",),
    }.items():
        made = job(tmp_path / name, "train.steps=2", "train.batch=6", *settings)
        trained(made)
        lines[name] = read(made.run / CURVE_FILE)[0]
    for part in ("judgment", "interpretation"):
        assert lines["plain"][part] == pytest.approx(lines["lopsided"][part])
        assert lines["weighted"][part] == pytest.approx(lines["lopsided"][part])
    judgment, interpretation = lines["plain"]["judgment"], lines["plain"]["interpretation"]
    assert min(judgment, interpretation) < lines["plain"]["loss"] < max(judgment, interpretation)
    assert abs(lines["plain"]["loss"] - interpretation) < abs(lines["lopsided"]["loss"] - interpretation)
    assert lines["weighted"]["loss"] != pytest.approx(lines["lopsided"]["loss"], abs=1e-4)


def test_bf16_is_close_to_fp32_and_saved_as_bf16(tmp_path: Path) -> None:
    curves = {}
    for precision in ("fp32", "bf16"):
        made = job(tmp_path / precision, f"train.precision={precision}", "train.zero_stage=1")
        trained(made)
        curves[precision] = [line["loss"] for line in read(made.run / CURVE_FILE)]
    assert curves["bf16"] == pytest.approx(curves["fp32"], rel=0.03)
    assert curves["bf16"] != curves["fp32"]
    assert next(load(made.run / FINAL)[0].parameters()).dtype == torch.bfloat16


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    large = job(tmp_path / "large", "train.batch=6")
    small = job(tmp_path / "small", "train.batch=2", "train.accumulate=3")
    trained(large)
    trained(small)
    losses = [[line["loss"] for line in read(made.run / CURVE_FILE)] for made in (large, small)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_ranks_share_one_global_batch(tmp_path: Path) -> None:
    """The micro-batches of ranks 0 and 1, laid together, are those of a single rank."""
    one, two = job(tmp_path / "1", "train.batch=4"), job(tmp_path / "2", "train.batch=2", "train.workers=2")
    _, processor = build(one.model)
    whole = Batches(one, processor, 0).micro(3, 0).inputs["pixel_values"]
    shares = [Batches(two, processor, rank, 2).micro(3, 0).inputs["pixel_values"] for rank in (0, 1)]
    assert torch.equal(torch.cat(shares), whole)


class Broken(ToyImages):
    def read(self, shard: str, row: int) -> bytes:
        return b"not a picture" if row == 7 else picture(row)


def test_a_picture_that_can_not_be_decoded_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{7:064x}"):
        trained(job(tmp_path / "r", images=Broken()))


def test_a_loss_that_is_not_finite_stops_training(tmp_path: Path) -> None:
    made = runaway(job(tmp_path / "r"), "language", "connector", "vision")
    with pytest.raises(TrainingError, match=r"not finite at step \d"):
        trained(made)
    assert not (made.run / FINAL).exists()


def test_full_disk_is_known_before_writing(tmp_path: Path) -> None:
    made = job(tmp_path / "r")
    with pytest.raises(TrainingNeedsSpace) as caught:
        run(made, free=lambda _: 2**20)
    assert str(made.run) in str(caught.value)
    assert "1.0 MiB are free" in str(caught.value)
    assert "go" in caught.value.fix
    assert not list(made.run.glob("*checkpoint*"))


def test_disk_that_fills_up_while_writing(tmp_path: Path) -> None:
    """A real limit on file size, while the disk reports free space."""
    import resource
    import signal

    made = job(tmp_path / "r")
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, old[1]))
        with pytest.raises(TrainingNeedsSpace, match="no space for the checkpoint"):
            trained(made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(made.run.glob("*checkpoint*"))
    assert not list(made.run.glob(".*"))
    # The same run goes through once there is space.
    assert trained(made) == [1, 3]


def test_disk_that_fills_up_while_safetensors_writes(tmp_path: Path) -> None:
    """As the final model and the average are written: an error of its own kind."""
    import resource
    import signal

    from ifas.training.checkpoint import written_by_all

    trained(job(tmp_path / "r", "train.steps=1"))  # joins the process group
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
        with pytest.raises(TrainingNeedsSpace, match="no space"), written_by_all(tmp_path / "model", 0) as folder:
            save_file({"a": torch.zeros(100_000)}, folder / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_curve_of_a_killed_run_is_cut_at_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / CURVE_FILE
    curve = Curve(path)
    for step in range(1, 6):
        curve.add(step, StepLosses(1.3, 1.0, 2.0, {}, (), False))
    with path.open("a") as f:
        f.write('{"step": 6, "los')
    assert len(read(path)) == 5
    Curve(path, start=3).add(4, StepLosses(0.5, 0.5, 0.5, {}, (), False))
    assert [(line["step"], line["judgment"]) for line in read(path)] == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 0.5)]


def test_empty_decks_can_not_happen() -> None:
    assert {row.spoof_type for row in rows_of(manifest())} == {"live", "print", "replay"}
