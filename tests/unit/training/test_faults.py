"""Steps that go wrong: losses or weights that are not finite."""

from pathlib import Path

import pytest
import torch
from toy_training import ToyImages, job, picture, runaway

from ifas.core.errors import ConfigError, TrainingError
from ifas.model import tuning
from ifas.model.build import build, load
from ifas.model.ifas_model import IfasModel
from ifas.model.loss import INTERPRETATION, JUDGMENT, lopsided
from ifas.training.batches import Batches
from ifas.training.curve import CURVE_FILE, read
from ifas.training.engine import Engine, join
from ifas.training.job import FINAL, Job
from ifas.training.loop import run

pytestmark = pytest.mark.usefixtures("alone")
BAD = 7


class Marked(ToyImages):
    """Its eighth picture is black, for which the model's loss is not finite."""

    def read(self, shard: str, row: int) -> bytes:
        import io

        from PIL import Image

        if row != BAD:
            return picture(row)
        stream = io.BytesIO()
        Image.new("RGB", (64, 64)).save(stream, "PNG")
        return stream.getvalue()


@pytest.fixture
def allergic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connector gives NaN for a black picture, and for no other."""
    embed = IfasModel.embed

    def broken(self: IfasModel, pixel_values: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        black_B = pixel_values.flatten(1).max(dim=1).values == 0
        hook = self.connector.register_forward_hook(
            lambda _module, _inputs, out: torch.where(black_B[:, None, None], torch.nan, out),
            prepend=True,
        )
        try:
            return embed(self, pixel_values, input_ids)
        finally:
            hook.remove()

    monkeypatch.setattr(IfasModel, "embed", broken)


def bad_job(run_folder: Path, *overrides: str) -> Job:
    return job(run_folder, "train.augment=false", "train.steps=9", *overrides, images=Marked())


@pytest.mark.usefixtures("allergic")
def test_the_sample_and_the_part_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=f"samples {BAD:064x}; it began in the connector") as caught:
        run(bad_job(tmp_path / "r"))
    assert "train.skip_batches" in caught.value.fix


@pytest.mark.usefixtures("allergic")
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_such_batches_are_left_out_up_to_a_cap(tmp_path: Path, stage: int) -> None:
    made = bad_job(tmp_path / "r", "train.skip_batches=5", f"train.zero_stage={stage}")
    assert run(made) == "finished"
    skipped = [line for line in read(made.run / CURVE_FILE) if "skipped" in line]
    assert 1 <= len(skipped) <= 5
    assert all(line["skipped"] == [f"{BAD:064x}"] for line in skipped)
    assert all(bool(torch.isfinite(p).all()) for p in load(made.run / FINAL)[0].parameters())


@pytest.mark.usefixtures("allergic")
def test_the_cap_counts_over_restarts(tmp_path: Path) -> None:
    made = bad_job(tmp_path / "r", "train.skip_batches=1", "train.steps=30", "train.checkpoint_every=1")
    for _ in range(2):
        with pytest.raises(TrainingError, match="1 batches were left out before"):
            run(made)


@pytest.fixture
def allergic_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are finite, and the connector's gradient is NaN for a black picture."""
    embed = IfasModel.embed

    def broken(self: IfasModel, pixel_values: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        black_B = pixel_values.flatten(1).max(dim=1).values == 0

        def spoil(_module: torch.nn.Module, _inputs: object, out: torch.Tensor) -> None:
            out.register_hook(lambda gradient: torch.where(black_B[:, None, None], torch.nan, gradient))

        hook = self.connector.register_forward_hook(spoil)
        try:
            return embed(self, pixel_values, input_ids)
        finally:
            hook.remove()

    monkeypatch.setattr(IfasModel, "embed", broken)


WAYS = [(0, "fp32"), (0, "bf16"), (1, "bf16"), (2, "bf16"), (2, "fp32"), (3, "bf16")]


@pytest.mark.usefixtures("allergic_backwards")
@pytest.mark.parametrize(("stage", "precision"), WAYS)
def test_a_gradient_that_is_not_finite_stops_training(tmp_path: Path, stage: int, precision: str) -> None:
    made = bad_job(tmp_path / "r", f"train.zero_stage={stage}", f"train.precision={precision}")
    with pytest.raises(
        TrainingError, match=r"the gradient of the connector is not finite at step \d, though"
    ) as caught:
        run(made)
    assert "train.skip_batches" in caught.value.fix


@pytest.mark.usefixtures("allergic_backwards")
@pytest.mark.parametrize(("stage", "precision"), WAYS)
def test_a_batch_with_such_a_gradient_changes_nothing(tmp_path: Path, stage: int, precision: str) -> None:
    """A run of which every batch has one ends with the weights that it began with."""
    made = bad_job(
        tmp_path / "r",
        f"train.zero_stage={stage}",
        f"train.precision={precision}",
        "train.steps=3",
        "train.batch=18",
        "train.skip_batches=9",
    )
    assert run(made) == "finished"
    curve = read(made.run / CURVE_FILE)
    assert [BAD in [int(sample, 16) for sample in line["skipped"]] for line in curve] == [True] * 3
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    before = build(made.model, seed=made.train.seed, dtype=dtype)[0]
    after = load(made.run / FINAL)[0].state_dict()
    for name, weight in before.named_parameters():
        assert torch.equal(after[name], weight.to(dtype)), name


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "fp32"), (2, "bf16"), (3, "fp32")])
def test_a_step_left_out_leaves_no_trace(tmp_path: Path, stage: int, precision: str) -> None:
    """Weights and moments after good, bad, good steps are those after the good ones alone."""
    made = job(
        tmp_path / "r",
        f"train.zero_stage={stage}",
        f"train.precision={precision}",
        "train.accumulate=2",
        "train.batch=3",
    )
    join(made.train)
    ends = []
    for plan in ((0, None, 2), (0, 2)):
        model, processor = build(made.model, seed=1)
        tuning.prepare(model, made.model)
        engine = Engine(model, tuning.parameter_groups(model, made.model, 0.01), made.train, accumulate=2)
        batches = Batches(made, processor, 0)
        for step in plan:
            engine.begin(step or 0)
            for k in range(2):
                batch = batches.micro(step or 1, k)
                sums = engine.forward(batch.inputs)
                parts = batch.inputs["parts"]
                counts = torch.stack([(parts == JUDGMENT).sum(), (parts == INTERPRETATION).sum()]).float()
                loss = lopsided(sums.sums, counts, 0.7)
                engine.backward(loss * torch.nan if step is None and k else loss, last=k == 1)
            engine.step(skip=step is None)
        with engine.whole_model() as whole:
            ends.append({name: p.detach().clone() for name, p in whole.named_parameters()})
    for name, wanted in ends[1].items():
        assert torch.equal(ends[0][name], wanted), name


def test_destroyed_weights_are_told_from_bad_samples(tmp_path: Path) -> None:
    made = runaway(job(tmp_path / "r", "train.skip_batches=99"), "connector")
    with pytest.raises(TrainingError, match="an earlier step destroyed the weights; it went wrong in the connector"):
        run(made)


@pytest.mark.skipif(torch.cuda.is_available(), reason="half precision works on a GPU")
def test_a_precision_that_the_device_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fp16") as caught:
        run(job(tmp_path / "r", "train.precision=fp16"))
    assert "bf16" in caught.value.fix
