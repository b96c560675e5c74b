"""Rewritten norms compute what those of transformers do; norms of another definition stay as they are."""

import copy
from importlib import import_module

import pytest
import torch
from tiny_model import tiny
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm

from ifas.core.config import load
from ifas.model import fused_norm
from ifas.model.build import build
from ifas.model.fused_norm import SAME, fuse
from ifas.model.sizing import size

WIDTH = 48


def norm_of(name: str) -> nn.Module:
    family = name.removesuffix("RMSNorm").lower()
    made: nn.Module = getattr(import_module(f"transformers.models.{family}.modeling_{family}"), name)(WIDTH, eps=1e-5)
    return made


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_and_gradients_are_those_of_transformers(name: str, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    plain = norm_of(name).to(dtype)
    nn.init.normal_(plain.weight, generator=draw)  # type: ignore[arg-type]
    fused = fuse(nn.Sequential(copy.deepcopy(plain)))
    x = (100 * torch.randn(3, 7, WIDTH, generator=draw)).to(dtype)
    ends = []
    for norm in (plain, fused):
        leaf = x.clone().requires_grad_()
        out = norm(leaf)
        assert out.dtype == dtype
        out.float().square().sum().backward()
        ends.append([out, leaf.grad, next(norm.parameters()).grad])
    near = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(other, one, **near)


def test_a_norm_of_another_definition_is_left_alone() -> None:
    norm = GemmaRMSNorm(WIDTH)
    nn.init.normal_(norm.weight)
    x = torch.randn(2, WIDTH)
    wanted = norm(x)
    assert torch.equal(fuse(nn.Sequential(norm))(x), wanted)


def test_a_model_keeps_its_names_and_weights_and_can_be_copied_and_saved() -> None:
    model, _ = build(tiny(), seed=1)
    names = set(model.state_dict())
    fuse(model.language)
    norms = [m for m in model.language.modules() if type(m).__name__ in SAME]
    assert len(norms) == 5, "two in each of two layers, and the last one"
    assert all(m.forward.__func__ is fused_norm._forward for m in norms)
    assert set(model.state_dict()) == names
    twin = copy.deepcopy(model)
    twin.language.get_decoder().norm.weight.data.zero_()
    x = torch.randn(1, 1, 32)
    assert not twin.language.get_decoder().norm(x).any(), "a copy has its own weights"
    assert model.language.get_decoder().norm(x).any()


def test_with_a_gpu_less_memory_is_predicted_and_the_same_flops() -> None:
    config = load("tiny", ["train.precision=bf16"])
    model, train = config.model, config.train
    plain, fused = (size(model, train.model_copy(update={"gpus_per_worker": n})) for n in (0, 1))
    assert fused["training"] == plain["training"]
    assert fused["memory"]["0"]["activations"] < plain["memory"]["0"]["activations"]
    assert fused["memory"]["0"]["weights"] == plain["memory"]["0"]["weights"]
