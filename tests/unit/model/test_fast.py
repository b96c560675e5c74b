"""A rewritten model computes what the saved one does."""

import copy

import pytest
import torch
from tiny_model import DINOV2, faces, tiny
from torch import nn

from ifas.model.build import build
from ifas.model.fast import LastPosition, PackedLinear, fold, pack, speed_up
from ifas.model.towers import EfficientNetLite0Tower, new_tower
from ifas.model.vision import tower_config


def lived(tower: EfficientNetLite0Tower) -> EfficientNetLite0Tower:
    """BatchNorms as after training: no statistic or weight is 0 or 1."""
    draw = torch.Generator().manual_seed(1)
    for norm in (m for m in tower.modules() if isinstance(m, nn.BatchNorm2d)):
        for values, low, high in (
            (norm.weight.data, 0.5, 1.5),
            (norm.bias.data, -0.5, 0.5),
            (norm.running_mean, -0.5, 0.5),
            (norm.running_var, 0.5, 2.0),
        ):
            values.uniform_(low, high, generator=draw)
    return tower.eval()


@pytest.mark.parametrize("side", [64, 96])
@torch.no_grad()
def test_a_folded_tower_sees_the_same(side: int) -> None:
    tower = lived(new_tower("efficientnet-lite0", {"image_size": side}))
    folded = copy.deepcopy(tower)
    fold(folded)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    pixels = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8)
    (patches, levels), (same, same_levels) = tower(pixels), folded(pixels)
    for one, other in zip([patches, *levels], [same, *same_levels], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)


def test_a_tower_of_half_precision_keeps_it() -> None:
    folded = lived(new_tower("efficientnet-lite0", {"image_size": 64})).to(torch.bfloat16)
    fold(folded)
    assert {p.dtype for p in folded.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 24), (16, 24), (3, 1, 24), (2, 40, 24)])
@torch.no_grad()
def test_a_packed_layer_is_the_layer(bias: bool, shape: tuple[int, ...]) -> None:
    linear = nn.Linear(24, 700, bias=bias)
    x = torch.randn(shape)
    torch.testing.assert_close(PackedLinear(linear, 16)(x), linear(x), rtol=1e-5, atol=1e-5)


def test_last_position() -> None:
    norm, x = nn.LayerNorm(8), torch.randn(2, 5, 8)
    out = LastPosition(norm)(x)
    assert out.shape == x.shape
    torch.testing.assert_close(out[:, -1], norm(x)[:, -1])
    assert not out[:, :-1].any()
    torch.testing.assert_close(LastPosition(norm)(x[:, :1]), norm(x[:, :1]))


@pytest.mark.parametrize("act", ["none", "gelu"])
@torch.no_grad()
def test_a_packed_layer_does_its_activation(act: str) -> None:
    linear, x = nn.Linear(24, 70), torch.randn(2, 9, 24)
    wanted = linear(x) if act == "none" else nn.functional.gelu(linear(x))
    torch.testing.assert_close(PackedLinear(linear, 16, act)(x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("kind", [(), ("model.vision.kind=siglip",), DINOV2], ids=["clip", "siglip", "dinov2"])
@torch.no_grad()
def test_a_packed_tower_sees_the_same_and_holds_its_matrices_once(kind: tuple[str, ...], act: str) -> None:
    vision = tiny(*kind).vision
    tower = new_tower(vision.kind, {**tower_config(vision), "hidden_act": act}).eval()
    packed = copy.deepcopy(tower)
    pack(packed, 34)
    assert not any(type(m) is nn.Linear for m in packed.modules())
    assert not any(p.ndim == 2 and "position" not in n for n, p in packed.named_parameters())
    pixels = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    (patches, levels), (same, same_levels) = tower(pixels), packed(pixels)
    for one, other in zip([patches, *levels], [same, *same_levels], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [(), ("model.vision.kind=siglip",), DINOV2], ids=["clip", "siglip", "dinov2"])
@torch.no_grad()
def test_prefill_and_the_steps_after_it_are_those_of_the_saved_model(kind: tuple[str, ...]) -> None:
    model, processor = build(tiny(*kind), seed=5)
    fast = speed_up(copy.deepcopy(model.eval()), 16)
    assert any(isinstance(m, PackedLinear) for m in fast.vision.modules())
    assert isinstance(fast.language.get_output_embeddings(), PackedLinear)
    pixels = processor.pixel_values([processor.views(image) for image in faces(6)])
    ids = torch.tensor([processor.prompt_ids]).expand(6, -1)
    hidden, cache = model.prefill(pixels, ids)
    for see in (0, 1, 4):
        same, same_cache = fast.prefill(pixels, ids, see)
        torch.testing.assert_close(same, hidden, rtol=1e-4, atol=1e-5)
        for layer, other in zip(cache.layers, same_cache.layers, strict=True):
            torch.testing.assert_close(other.keys, layer.keys, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(other.values, layer.values, rtol=1e-4, atol=1e-5)
    said = torch.full((6, 1), 40)
    logits = model.language(input_ids=said, past_key_values=cache, use_cache=True).logits
    again = fast.language(input_ids=said, past_key_values=same_cache, use_cache=True).logits
    torch.testing.assert_close(again, logits, rtol=1e-4, atol=1e-5)
