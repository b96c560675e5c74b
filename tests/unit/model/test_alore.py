"""ALoRE against its definition: Kronecker products built in full, ranks, the paper's parameter count, exact merge."""

import pytest
import torch
from torch import Tensor, nn

from ifas.core.config import VisionConfig, load
from ifas.core.errors import ConfigError
from ifas.model import alore
from ifas.model.build import describe
from ifas.model.towers import new_tower

VIT_B = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 16,
    "image_size": 224,
}


def random_adapter(width: int, experts: int = 4, bottleneck: int = 4, scale: float = 0.7) -> alore.Alore:
    torch.manual_seed(width)
    adapter = alore.Alore(width, experts=experts, bottleneck=bottleneck, scale=scale, readers=())
    nn.init.normal_(adapter.up)
    return adapter.double()


def kronecker(adapter: alore.Alore, expert: int) -> Tensor:
    """Matrix (d, d) of one expert, as the paper writes it: two Kronecker products."""
    up = torch.kron(adapter.rule_up[expert], adapter.up[expert])
    down = torch.kron(adapter.rule_down[expert], adapter.down[expert])
    return up @ down


@pytest.mark.parametrize(("experts", "bottleneck"), [(1, 3), (4, 4), (8, 2)])
def test_forward_is_the_kronecker_form(experts: int, bottleneck: int) -> None:
    adapter = random_adapter(48, experts, bottleneck)
    x = torch.randn(2, 5, 48, dtype=torch.float64)
    full = torch.eye(48, dtype=torch.float64) + 0.7 * sum(kronecker(adapter, e) for e in range(experts))
    torch.testing.assert_close(adapter(x), x @ full.T, rtol=1e-12, atol=1e-12)
    weight = torch.randn(7, 48, dtype=torch.float64)
    torch.testing.assert_close(adapter.fold(weight), weight @ full, rtol=1e-12, atol=1e-12)


def test_rank_of_one_expert_and_of_their_sum() -> None:
    """n * w = 16 and n * n * w = 64; summing the factors before multiplying, as PHM does, would stay at 16."""
    adapter = random_adapter(768)
    experts = [kronecker(adapter, e) for e in range(4)]
    assert [int(torch.linalg.matrix_rank(e)) for e in experts] == [16] * 4
    assert int(torch.linalg.matrix_rank(torch.stack(experts).sum(0))) == 64
    up = sum(torch.kron(a, b) for a, b in zip(adapter.rule_up, adapter.up, strict=True))
    down = sum(torch.kron(a, b) for a, b in zip(adapter.rule_down, adapter.down, strict=True))
    assert int(torch.linalg.matrix_rank(up @ down)) == 16


def test_parameters_on_vit_b_are_the_papers() -> None:
    with torch.device("meta"):
        tower = new_tower("clip", VIT_B)
        alore.inject(tower, VisionConfig(tune="alore"), "vision")
    trained = {name: p.numel() for name, p in tower.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == 150_528
    assert len({name.rpartition(".")[0] for name in trained}) == 24
    overrides = ["model.vision.tune=alore", "model.language.tune=frozen"]
    assert describe(load("base", overrides).model)["vision"]["trainable"] == 150_528


def test_no_kronecker_product_is_built() -> None:
    """No tensor of a forward and backward pass is as large as the d x d matrix of an expert."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else [out]:
                if isinstance(tensor, Tensor):
                    self.elements = max(self.elements, tensor.numel())
            return out

    adapter = random_adapter(768)
    x = torch.randn(3, 768, dtype=torch.float64, requires_grad=True)
    with Largest() as largest:
        adapter(x).sum().backward()
    assert largest.elements <= 2 * adapter.up.numel() < 768 * 768 / 50


def test_shared_by_q_k_and_v_and_computed_once() -> None:
    with torch.device("meta"):
        tower = new_tower("clip", {**VIT_B, "num_hidden_layers": 2})
        alore.inject(tower, VisionConfig(tune="alore"), "vision")
        calls: list[str] = []
        for name, module in tower.named_modules():
            if isinstance(module, alore.Alore):
                module.register_forward_hook(lambda *_, name=name: calls.append(name))
        tower(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))
    at = "net.encoder.layers"
    assert calls == [f"{at}.{i}.{block}.alore" for i in range(2) for block in ("self_attn", "mlp")]


def test_width_that_the_experts_do_not_divide() -> None:
    tower = new_tower("clip", {**VIT_B, "num_hidden_layers": 1})
    with pytest.raises(ConfigError, match="5 experts do not divide the width 768"):
        alore.inject(tower, VisionConfig(tune="alore", alore_experts=5), "vision")


def test_a_network_without_such_blocks_is_refused() -> None:
    with torch.device("meta"):
        tower = new_tower("efficientnet-lite0", {"image_size": 64})
    with pytest.raises(ConfigError, match="choose another model"):
        alore.inject(tower, VisionConfig(kind="efficientnet-lite0", tune="alore"), "vision")


def test_a_block_with_an_unknown_linear_layer_is_refused() -> None:
    """The unknown layer might read the block's input; then a merge would be wrong."""
    with torch.device("meta"):
        tower = new_tower("clip", {**VIT_B, "num_hidden_layers": 1})
        tower.net.encoder.layers[0].self_attn.gate = nn.Linear(768, 12)
    with pytest.raises(ConfigError, match=r"self_attn\.gate"):
        alore.inject(tower, VisionConfig(tune="alore"), "vision")
