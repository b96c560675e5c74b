"""Training with its blocks compiled: the same numbers, a bounded number of compilations, a plain model."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_training import config, job

from ifas.core.errors import ConfigError
from ifas.model.build import build, load
from ifas.model.compiled import compile_blocks
from ifas.training.curve import CURVE_FILE, read
from ifas.training.job import FINAL, Job
from ifas.training.loop import run
from ifas.training.step import Engine

pytestmark = pytest.mark.usefixtures("alone")
SETTINGS = ("model.vision.tune=alore", "model.language.tune=lora", "model.max_answer_tokens=64")


def worded(made: Job) -> Job:
    """The job with captions of one to nine words."""
    rows = tuple(row._replace(caption=" ".join(["word"] * (1 + i // 2))) for i, row in enumerate(made.rows))
    return replace(made, rows=rows)


def losses(made: Job) -> list[float]:
    return [line["loss"] for line in read(made.run / CURVE_FILE)]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++")
@pytest.mark.parametrize("stage", [2])
def test_a_compiled_run_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int) -> None:
    settings = (*SETTINGS, f"train.zero_stage={stage}", "train.steps=8", "train.batch=2", "train.augment=false")
    plain, compiled = (worded(job(tmp_path / name, *settings, f"train.compile={name}")) for name in ("false", "true"))
    run(plain)

    lengths: list[int] = []
    forward = Engine.forward

    def seen(self: Engine, inputs: dict[str, torch.Tensor]) -> object:
        if len({*lengths}) == 2:
            # It has been compiled for one length, and for every length.
            torch.compiler.set_stance("fail_on_recompile")
        lengths.append(inputs["input_ids"].shape[1])
        return forward(self, inputs)

    monkeypatch.setattr(Engine, "forward", seen)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "code"))
    torch.compiler.reset()
    try:
        assert run(compiled) == "finished"
    finally:
        torch.compiler.set_stance("default")
        torch.compiler.reset()
    assert len({*lengths}) > 3
    assert len([*(tmp_path / "code").rglob("*.so")]) > 3
    assert losses(compiled) == pytest.approx(losses(plain), abs=1e-5)
    ours, theirs = (load(made.run / FINAL)[0].state_dict() for made in (compiled, plain))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], atol=1e-4, rtol=0)


@pytest.mark.slow
def test_without_a_compiler_training_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "code"))
    torch.compiler.reset()
    made = job(tmp_path / "r", "train.compile=true")
    # By its own means: what monkeypatch sets there it removes afterwards, for all tests of this process.
    without = inductor.patch({"cpp.cxx": ("/nowhere/g++",)})
    with without, pytest.raises(ConfigError, match=r"train\.compile: torch\.compile failed") as caught:
        run(made)
    assert "g++" in caught.value.fix
    assert not [*made.run.iterdir()]


def test_the_tower_is_left_alone_where_its_features_are_kept() -> None:
    model, _ = build(config().model)
    assert compile_blocks(model, tower=False) == 2
    assert "forward" not in model.vision.net.encoder.layers[0].__dict__
    assert compile_blocks(model) == 5


def test_layers_of_unlike_shapes_are_refused() -> None:
    model, _ = build(config().model)
    model.language.get_decoder().layers[1].mlp = torch.nn.Linear(32, 32)
    with pytest.raises(ConfigError, match=r"train\.compile: the layers of Llama.* differ"):
        compile_blocks(model)
    assert "forward" not in model.vision.net.encoder.layers[0].__dict__
