"""Adapters in every part of the model: identity at the start, frozen weights untouched, exact merge, plain files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import CAPTIONS, DINOV2, faces, tiny

from ifas.core.config import ModelConfig
from ifas.core.errors import ConfigError
from ifas.model import tuning
from ifas.model.build import build, load, save
from ifas.model.loss import lopsided

PARTS = tuning.PARTS
SIGLIP = ("model.vision.kind=siglip",)
EFFICIENTNET = ("model.vision.kind=efficientnet-lite0", "model.vision.shape={}")


def tuned(kind: str, *overrides: str, parts: tuple[str, ...] = PARTS) -> ModelConfig:
    tunes = [f"model.{part}.tune={kind if part in parts else 'frozen'}" for part in PARTS]
    return tiny(*tunes, *overrides)


def batch_of(processor: object) -> dict[str, torch.Tensor]:
    images = [processor.views(p) for p in faces(3)]  # type: ignore[attr-defined]
    made = processor.batch(images, [True, False, False], CAPTIONS[:3])  # type: ignore[attr-defined]
    assert isinstance(made, dict)
    return made


def answers(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Everything the model computes: logits at every position."""
    with torch.no_grad():
        return model.language(inputs_embeds=model.embed(batch["pixel_values"], batch["input_ids"])).logits  # type: ignore


def disturb(model: torch.nn.Module) -> None:
    """Adapters start as no-ops; this gives them something to do."""
    torch.manual_seed(5)
    for name, p in model.named_parameters():
        if "lora_B" in name or name.endswith("alore.up"):
            torch.nn.init.normal_(p, std=0.1)


@pytest.mark.parametrize("kind", ["lora", "alore"])
@pytest.mark.parametrize("overrides", [(), SIGLIP, DINOV2], ids=["clip", "siglip", "dinov2"])
def test_identity_at_the_start_and_exact_merge(kind: str, overrides: tuple[str, ...], tmp_path: Path) -> None:
    config = tuned(kind, *overrides)
    model, processor = build(config)
    model.eval()
    batch = batch_of(processor)
    names, before = model.state_dict().keys(), answers(model, batch)
    tuning.prepare(model, config)
    torch.testing.assert_close(answers(model, batch), before, rtol=0, atol=1e-6)
    disturb(model)
    adapted = answers(model, batch)
    assert (adapted - before).abs().max() > 1e-3
    tuning.merge(model)
    assert (answers(model, batch) - adapted).abs().max() <= 1e-5
    assert model.state_dict().keys() == names
    assert not any(m._forward_pre_hooks for m in model.modules())
    save(model, processor, tmp_path / "m")
    assert not [n for f in (tmp_path / "m").glob("*.safetensors") for n in load_file(f) if "lora" in n or "alore" in n]
    served, _ = load(tmp_path / "m")
    assert {type(m).__name__ for m in served.modules()} == {type(m).__name__ for m in build(config)[0].modules()}
    assert (answers(served, batch) - adapted).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", ["lora", "alore"])
@pytest.mark.parametrize("part", PARTS)
def test_training_moves_the_adapter_and_nothing_else(kind: str, part: str) -> None:
    """Also: a tower with an adapter is trained through, though its own weights are frozen."""
    config = tuned(kind, parts=(part,))
    model, processor = build(config)
    tuning.prepare(model, config)
    batch = batch_of(processor)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(tuning.parameter_groups(model, config, 0.1))
    model.train()
    losses = []
    for _ in range(4):
        out = model(**batch)
        loss = lopsided(out.sums, out.counts, 0.7)
        loss.backward()
        losses.append(loss.item())
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        optimizer.step()
        optimizer.zero_grad()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {n for n in before if n.startswith(part) and ("lora_" in n or ".alore." in n)} != set()
    assert losses[-1] < losses[0]


def test_merge_rounds_once_in_bfloat16() -> None:
    """The sum is taken in float32 and rounded; rounding the update first would be one more error."""
    for kind in ("lora", "alore"):
        config = tuned(kind, parts=("language",))
        model, _ = build(config)
        tuning.prepare(model, config)
        disturb(model)
        model.bfloat16()
        exact, _ = build(config)
        tuning.prepare(exact, config)
        exact.load_state_dict(model.state_dict())  # float32 copies of the same bfloat16 values
        tuning.merge(model)
        tuning.merge(exact)
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, exact.state_dict()[name].bfloat16()), name


def test_each_part_has_its_own_adapter_and_rate() -> None:
    config = tiny(
        "model.vision.tune=alore", "model.connector.tune=full", "model.language.tune=lora", "model.vision.lr=0.5"
    )
    model, _ = build(config)
    tuning.prepare(model, config)
    kinds = {
        part: {
            "lora" if "lora_" in n else "alore" if ".alore." in n else "full"
            for n, p in getattr(model, part).named_parameters()
            if p.requires_grad
        }
        for part in PARTS
    }
    assert kinds == {"vision": {"alore"}, "connector": {"full"}, "language": {"lora"}}
    assert {g["name"]: g["lr"] for g in tuning.parameter_groups(model, config, 0.1)}["vision"] == 0.5


@pytest.mark.parametrize(
    ("kind", "why"),
    [("alore", "vision has 0 attention and 0 MLP blocks"), ("lora", "efficientnet-lite0 pad their input")],
)
def test_a_convolutional_tower_takes_no_adapter(kind: str, why: str) -> None:
    config = tuned(kind, *EFFICIENTNET, parts=("vision",))
    model, _ = build(config)
    with pytest.raises(ConfigError, match=why):
        tuning.prepare(model, config)
