"""The whole model: round trip, LoRA, padding, splits, what is trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import CAPTIONS, DINOV2, faces, tiny
from transformers import AutoModel

from ifas.core.errors import ConfigError
from ifas.model import tuning
from ifas.model.build import build, describe, load, save
from ifas.model.loss import lopsided

LIVE = [True, False, False, True, False]
LORA = ("model.language.tune=lora", "model.vision.tune=frozen")
EFFICIENTNET = (
    "model.vision.kind=efficientnet-lite0",
    "model.vision.tune=full",
    "model.vision.shape={}",
)


def batch_of(processor: object, n: int = 5, pad_to: int = 0) -> dict[str, torch.Tensor]:
    made = processor.batch(  # type: ignore[attr-defined]
        [processor.views(p) for p in faces(n)],  # type: ignore[attr-defined]
        LIVE[:n],
        CAPTIONS[:n],
        pad_to=pad_to,
    )
    assert isinstance(made, dict)
    return made


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    model, processor = build(tiny(), seed=3)
    save(model, processor, tmp_path / "m")
    again, other = load(tmp_path / "m")
    wanted, got = model.state_dict(), again.state_dict()
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    batch = batch_of(processor)
    with torch.no_grad():
        assert torch.equal(model.eval()(**batch).sums, again(**batch_of(other)).sums)
    assert sorted(p.suffix for p in (tmp_path / "m").iterdir()) == sorted([".json"] * 4 + [".jinja", ".safetensors"])
    assert type(AutoModel.from_pretrained(tmp_path / "m")).__name__ == "IfasModel"


def test_same_seed_same_weights() -> None:
    (first, _), (second, _), (third, _) = build(tiny(), seed=1), build(tiny(), seed=1), build(tiny(), seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.connector.queries, third.connector.queries)


def test_embeddings_stay_tied(tmp_path: Path) -> None:
    model, processor = build(tiny())
    save(model, processor, tmp_path / "m")
    language = load(tmp_path / "m")[0].language
    assert language.get_input_embeddings().weight is language.get_output_embeddings().weight


@pytest.mark.parametrize("tower", [(), ("model.vision.kind=siglip",), EFFICIENTNET])
def test_features_stand_for_pixels(tower: tuple[str, ...]) -> None:
    model, processor = build(tiny(*tower))
    model.eval()
    batch = batch_of(processor)
    with torch.no_grad():
        wanted = model(**batch)
        features_BF = model.features(batch.pop("pixel_values"))
        assert features_BF.shape[0] == 5
        assert features_BF.ndim == 2
        torch.testing.assert_close(model(features=features_BF, **batch).sums, wanted.sums)
        assert not torch.allclose(model(features=features_BF.flip(0), **batch).sums, wanted.sums)


def test_padding_changes_nothing() -> None:
    model, processor = build(tiny())
    model.eval()
    with torch.no_grad():
        short, long = model(**batch_of(processor)), model(**batch_of(processor, pad_to=90))
    assert torch.equal(short.counts, long.counts)
    torch.testing.assert_close(short.sums, long.sums, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_in_float64_one_two_and_eight_shares_have_one_gradient(tune: str) -> None:
    """8 samples as 1x8, 2x4 and 8x1: micro-batches, accumulation steps and ranks are all shares of one batch."""
    config = tiny(f"model.language.tune={tune}")
    model, processor = build(config)
    tuning.prepare(model, config)
    model.double()
    pictures8 = [processor.views(p) for p in faces(8)]
    batch = processor.batch(pictures8, (LIVE * 2)[:8], (CAPTIONS * 2)[:8])
    counts = model(**batch).counts.detach()
    found = []
    for size in (8, 4, 1):
        model.zero_grad()
        for start in range(0, 8, size):
            share = model(**{name: tensor[start : start + size] for name, tensor in batch.items()})
            lopsided(share.sums, counts, 0.7).backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() == found[2].keys()
    for name, wanted in found[0].items():
        for other in found[1:]:
            torch.testing.assert_close(other[name], wanted, rtol=1e-6, atol=1e-12, msg=name)


def test_gradients_are_the_same_under_any_split_of_the_batch() -> None:
    model, processor = build(tiny())
    batch = batch_of(processor)
    whole = model(**batch)
    lopsided(whole.sums, whole.counts, 0.7).backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for rows in (slice(0, 1), slice(1, 3), slice(3, 5)):
        share = model(**{name: tensor[rows] for name, tensor in batch.items()})
        lopsided(share.sums, whole.counts, 0.7).backward()
    for name, p in model.named_parameters():
        if name in wanted:
            torch.testing.assert_close(p.grad, wanted[name], rtol=1e-4, atol=1e-6)


def test_loss_is_that_of_the_plain_sequence() -> None:
    """Loss sums against log-probabilities read off the full logits, position by position."""
    model, processor = build(tiny())
    model.eval()
    batch = batch_of(processor, 2)
    with torch.no_grad():
        got = model(**batch)
        logits = model.language(inputs_embeds=model.embed(batch["pixel_values"], batch["input_ids"])).logits
    logp = logits.log_softmax(-1)
    for index, part in enumerate((1, 2)):
        total = 0.0
        for b in range(2):
            for t in range(1, logits.shape[1]):
                if batch["parts"][b, t] == part:
                    total -= logp[b, t - 1, batch["input_ids"][b, t]].item()
        assert got.sums[index].item() == pytest.approx(total, rel=1e-5)


def test_the_token_that_decides_the_attack_weighs_more_in_its_part_alone() -> None:
    model, processor = build(tiny("model.max_answer_tokens=20"))
    model.eval()
    seen = [processor.views(face) for face in faces(3)]
    given = {"live": [True, False, False], "captions": list(CAPTIONS[:3]), "attacks": ["live", "print", "replay"]}
    heavy = processor.batch(seen, **given, attack_weight=5)
    even = processor.batch(seen, **given)
    assert (even["weights"] == 1).all()
    assert (heavy["weights"] == 5).sum(dim=1).tolist() == [0, 1, 1]
    phrases = [processor.phrase(attack) for attack in ("print", "replay")]
    at = processor.decides("print").start
    assert phrases[0][:at] == phrases[1][:at], "the phrases begin alike"
    assert phrases[0][at] != phrases[1][at]
    with torch.no_grad():
        more, plain = model(**heavy), model(**even)
        alone = {**even, "parts": even["parts"].masked_fill(heavy["weights"] != 5, 0)}
        decides = model(**alone)
    torch.testing.assert_close(more.sums_B2[:, 0], plain.sums_B2[:, 0])
    assert (more.counts_B2[:, 1] - plain.counts_B2[:, 1]).tolist() == [0, 4, 4]
    torch.testing.assert_close(more.sums_B2[:, 1], plain.sums_B2[:, 1] + 4 * decides.sums_B2[:, 1])


def test_merged_lora_equals_the_adapter_and_leaves_plain_layers(tmp_path: Path) -> None:
    config = tiny(*LORA)
    model, processor = build(config)
    plain_keys = model.state_dict().keys()
    tuning.prepare(model, config)
    for name, p in model.language.named_parameters():
        if "lora_B" in name:  # zero at first: without this, the adapter would do nothing
            torch.nn.init.normal_(p, std=0.1)
    model.eval()
    batch = batch_of(processor)
    with torch.no_grad():
        adapted = model(**batch).sums
        tuning.merge(model)
        merged = model(**batch).sums
    torch.testing.assert_close(merged, adapted, rtol=1e-5, atol=1e-5)
    assert model.state_dict().keys() == plain_keys
    assert not any("lora" in type(m).__module__ for m in model.modules())
    save(model, processor, tmp_path / "m")
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "m")[0](**batch).sums, merged)


@pytest.mark.parametrize(
    ("overrides", "trained"),
    [
        ((), {"vision", "connector", "language"}),
        (LORA, {"connector", "language"}),
        (("model.language.tune=frozen", "model.vision.tune=frozen"), {"connector"}),
    ],
)
def test_only_what_is_tuned_gets_gradients(overrides: tuple[str, ...], trained: set[str]) -> None:
    config = tiny(*overrides)
    model, processor = build(config)
    tuning.prepare(model, config)
    out = model.train()(**batch_of(processor))
    lopsided(out.sums, out.counts, 0.7).backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == trained
    grouped = [p for group in tuning.parameter_groups(model, config, 0.01) for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters() if p.requires_grad}


def test_groups_have_their_own_rates_and_decay() -> None:
    config = tiny("model.vision.lr=0.1", "model.connector.lr=0.2", "model.language.lr=0.3")
    model, _ = build(config)
    tuning.prepare(model, config)
    rates = {g["name"]: (g["lr"], g["weight_decay"]) for g in tuning.parameter_groups(model, config, 0.05)}
    assert rates["vision"] == (0.1, 0.05)
    assert rates["connector (no decay)"] == (0.2, 0.0)
    assert rates["language"] == (0.3, 0.05)


def test_the_layers_of_the_connector_learn_at_a_rate_of_their_own() -> None:
    config = tiny("model.connector.lr=0.2", "model.connector.branch_lr=0.1")
    model, _ = build(config)
    tuning.prepare(model, config)
    groups = tuning.parameter_groups(model, config, 0.0)
    rate_of = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(rate_of), "a parameter is in one group only"
    for name, parameter in model.connector.named_parameters():
        assert rate_of[id(parameter)] == pytest.approx(0.02 if name.startswith("layers.") else 0.2), name


def test_unknown_lora_target() -> None:
    config = tiny(*LORA, "model.language.lora_targets=[nope]")
    model, _ = build(config)
    with pytest.raises(ConfigError, match="nope"):
        tuning.prepare(model, config)


def test_efficientnet_levels_do_not_depend_on_the_scale_of_a_stage() -> None:
    """Mean and spread that the last BatchNorms of a stage give its channels are taken out again."""
    model, _ = build(tiny(*EFFICIENTNET))
    tower = model.vision.eval()
    pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.no_grad():
        _, before = tower(pixels)
        last = tower.net._blocks[tower.ends[-1]]._bn2
        last.bias.add_(5)
        _, shifted = tower(pixels)
        torch.testing.assert_close(shifted[-1], before[-1], rtol=1e-4, atol=1e-4)
        only = tower.net._blocks[tower.ends[0]]._bn2  # stage 0 has one block, so nothing is added to its output
        assert tower.ends[0] == 0
        only.weight.mul_(7)
        only.bias.mul_(7)
        _, after = tower(pixels)
    torch.testing.assert_close(after[0], before[0], rtol=2e-2, atol=2e-2)  # a thousandth keeps the division finite
    blocks = [tower.net._blocks[i]._bn2 for i in range(tower.ends[1] + 1, tower.ends[2] + 1)]
    shift = sum(b.bias for b in blocks)
    scale = sum(b.weight**2 for b in blocks) ** 0.5 / tower.POOLED + 1e-3
    pooled: list[torch.Tensor] = []
    hook = tower.net._blocks[tower.ends[2]].register_forward_hook(lambda *a: pooled.append(a[2].mean((2, 3))))
    with torch.no_grad():
        _, levels = tower(pixels)
    hook.remove()
    torch.testing.assert_close(levels[2], (pooled[0] - shift) / scale)


def test_efficientnet_batchnorm_never_sees_the_batch() -> None:
    """Its result for a picture must not depend on the others in the batch, even when it is trained."""
    config = tiny(*EFFICIENTNET)
    model, processor = build(config)
    tuning.prepare(model, config)
    model.train()
    pixels = batch_of(processor)["pixel_values"][:, 0]
    patches, levels = model.vision(pixels)
    alone, _ = model.vision(pixels[:1])
    assert patches.shape == (5, 4, 1280)
    assert [level.shape[1] for level in levels] == [16, 24, 40, 80, 112, 192, 320]
    torch.testing.assert_close(alone, patches[:1], rtol=1e-4, atol=1e-4)


def test_clip_global_tokens_are_the_class_tokens_of_every_layer() -> None:
    model, processor = build(tiny())
    pixels = batch_of(processor, 2)["pixel_values"][:, 0]
    patches, levels = model.vision.eval()(pixels)
    mean, std = np.array(model.vision.mean), np.array(model.vision.std)
    normalised = (pixels.permute(0, 2, 3, 1).numpy() - mean) / std
    hidden = model.vision.net(
        pixel_values=torch.from_numpy(normalised).permute(0, 3, 1, 2).float(), output_hidden_states=True
    ).hidden_states
    assert len(levels) == len(hidden) - 1 == 3
    for level, state in zip(levels, hidden[1:], strict=True):
        torch.testing.assert_close(level, state[:, 0], rtol=1e-4, atol=1e-5)
    assert patches.shape == (2, 16, 32)


def test_siglip_global_tokens_are_the_means_of_every_layer() -> None:
    model, processor = build(tiny("model.vision.kind=siglip"))
    pixels = batch_of(processor, 2)["pixel_values"][:, 0]
    patches, levels = model.vision.eval()(pixels)
    states: list[torch.Tensor] = []
    for layer in model.vision.net.encoder.layers:
        layer.register_forward_hook(lambda *a: states.append(a[2]))
    model.vision.net(pixel_values=pixels.float() / 127.5 - 1)
    assert len(levels) == len(states) == 3
    for level, state in zip(levels, states, strict=True):
        torch.testing.assert_close(level, state.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(patches, states[-1], rtol=1e-4, atol=1e-5)
    assert patches.shape == (2, 16, 32)


def test_dinov2_global_tokens_are_the_class_tokens_of_every_layer() -> None:
    model, processor = build(tiny(*DINOV2))
    pixels = batch_of(processor, 2)["pixel_values"][:, 0]
    patches, levels = model.vision.eval()(pixels)
    states: list[torch.Tensor] = []
    for layer in model.vision.net.encoder.layer:
        layer.register_forward_hook(lambda *a: states.append(a[2]))
    # ImageNet's mean and spread, published for pixels of 0 to 1.
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    out = model.vision.net(pixel_values=(pixels / 255 - mean) / std)
    assert len(levels) == len(states) == 3
    for level, state in zip(levels, states, strict=True):
        torch.testing.assert_close(level, state[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(patches, out.last_hidden_state[:, 1:], rtol=1e-4, atol=1e-5)
    assert patches.shape == (2, 16, 32)


def test_every_weight_of_a_dinov2_tower_takes_part() -> None:
    """Else a worker of distributed training would wait for gradients that never come."""
    config = tiny(*DINOV2)
    model, processor = build(config)
    tuning.prepare(model, config)
    out = model.train()(**batch_of(processor))
    lopsided(out.sums, out.counts, 0.7).backward()
    assert [name for name, p in model.vision.named_parameters() if p.grad is None] == []


def test_describe_counts_what_build_builds() -> None:
    for overrides in ((), LORA, EFFICIENTNET, DINOV2):
        config = tiny(*overrides)
        model, processor = build(config)
        sizes = describe(config)
        assert sizes["total"]["parameters"] == tuning.count(model)["total"]["parameters"]
        tuning.prepare(model, config)
        assert sizes["total"]["trainable"] == tuning.count(model)["total"]["trainable"]
        assert sizes["image_tokens"] == processor.image_tokens


def test_image_size_that_the_patches_do_not_tile() -> None:
    with pytest.raises(ConfigError, match="multiple of the patch size"):
        build(tiny("model.vision.image_size=70"))
