"""ALoRE: aggregated low-rank experts before the first linear layers of a block (arXiv 2412.08341), and their merge.

A block (attention, MLP) reads x, of width d; with n experts of bottleneck w it reads instead

    x' = x + s * sum_e (U_e (x) P_e)(D_e (x) Q_e) x,    e = 1..n,    U_e, D_e: n x n,    P_e: d/n x w,    Q_e: w x d/n

where (x) is the Kronecker product. It is linear and has no bias, so each linear layer W that reads x takes it over
exactly: W' = W (I + s * sum_e (U_e D_e) (x) (P_e Q_e)), by the mixed-product rule; biases stay. No product is ever
built: x is taken as an n x d/n matrix X, and expert e of it is U_e D_e X (P_e Q_e)^T.

One expert has rank n * w, their sum n * n * w at most. A place costs n (2 w d/n) + 2 n^3 parameters: 150,528 over the
24 places of ViT-B at n = w = 4, the paper's 0.15 M. Our choices, not stated where we read of the method: rules of each
expert's own, N(0, 1/n), which keeps the scale of what passes; Q_e uniform as torch's Linear; P_e zero, so that training
starts at the base model; no dropout. In a language model and in the connector it is an extrapolation: there, as in a
vision tower, q, k and v (gate and up) of a block share what stands before them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ifas.core.errors import ConfigError

if TYPE_CHECKING:
    from ifas.core.config import TunedSection

#: Name under which a block holds its adapter.
CHILD = "alore"

#: Blocks of a layer -> sets of linear layers that read the block's input, each the whole set of some architecture.
#: To support one more, add its names; other linear layers of a block must be listed in `INNER`.
READERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "self_attn": (("q_proj", "k_proj", "v_proj"), ("qkv_proj",)),
    "attention": (("q_proj", "k_proj", "v_proj"),),
    "mlp": (("fc1",), ("gate_proj", "up_proj"), ("gate_up_proj",)),
    "msa": (("query", "key", "value"),),
}

#: Linear layers of those blocks that read something else than the block's input.
INNER = frozenset({"out_proj", "o_proj", "fc2", "down_proj", "out", "dense"})


class Alore(nn.Module):
    """The experts of one place.

    Args:
        width: d, features of the block's input; a multiple of `experts`.
        experts: n, number of experts and size of their Kronecker rules.
        bottleneck: w.
        scale: s.
        readers: names, in the block, of the linear layers that read the output.
    """

    def __init__(self, width: int, *, experts: int, bottleneck: int, scale: float, readers: tuple[str, ...]) -> None:
        super().__init__()
        self.scale, self.readers = scale, readers
        part = width // experts
        self.rule_down = nn.Parameter(torch.empty(experts, experts, experts))
        self.rule_up = nn.Parameter(torch.empty(experts, experts, experts))
        self.down = nn.Parameter(torch.empty(experts, bottleneck, part))
        self.up = nn.Parameter(torch.empty(experts, part, bottleneck))
        nn.init.normal_(self.rule_down, std=experts**-0.5)
        nn.init.normal_(self.rule_up, std=experts**-0.5)
        nn.init.kaiming_uniform_(self.down.flatten(0, 1), a=math.sqrt(5))
        nn.init.zeros_(self.up)

    def forward(self, x_D: Tensor) -> Tensor:
        """x (..., d) -> x' (..., d)."""
        rules_EIJ = self.rule_up @ self.rule_down
        x_JK = x_D.reshape(*x_D.shape[:-1], rules_EIJ.shape[0], -1)
        return x_D + self.scale * self._through(x_JK, rules_EIJ, self.down, self.up)

    def fold(self, weight_OD: Tensor) -> Tensor:
        """W (out, d) -> W' (out, d) with this adapter in it; computed in float32 at least, in the dtype of W.

        Each row of W passes the adapter's transpose: rules, down and up are transposed and change places.
        """
        exact = torch.promote_types(weight_OD.dtype, torch.float32)
        rules_EIJ = (self.rule_up.to(exact) @ self.rule_down.to(exact)).mT
        rows_OD = weight_OD.to(exact)
        x_OJK = rows_OD.reshape(len(rows_OD), rules_EIJ.shape[0], -1)
        update_OD = self._through(x_OJK, rules_EIJ, self.up.to(exact).mT, self.down.to(exact).mT)
        return (rows_OD + self.scale * update_OD).to(weight_OD.dtype)

    @staticmethod
    def _through(x_JK: Tensor, rules_EIJ: Tensor, down_EWK: Tensor, up_EKW: Tensor) -> Tensor:
        """sum_e rules_e X (up_e down_e)^T, flattened: (..., n, d/n) -> (..., d)."""
        low_JEW = torch.einsum("...jk,ewk->...jew", x_JK, down_EWK)
        mixed_IEW = torch.einsum("eij,...jew->...iew", rules_EIJ, low_JEW)
        return torch.einsum("...iew,ekw->...ik", mixed_IEW, up_EKW).flatten(-2)


def inject(part: nn.Module, section: TunedSection, where: str) -> None:
    """Freezes a part of the model, and puts an adapter before every attention and MLP block of it.

    Args:
        part: a vision tower, the connector or the language model.
        section: `alore_experts`, `alore_bottleneck`, `alore_scale`.
        where: the part's name in messages.

    Raises:
        ConfigError: no block that `READERS` knows, attention without MLP, or a width that n does not divide.
    """
    part.requires_grad_(False)
    found = [
        (block, name.rpartition(".")[2], readers)
        for name, block in part.named_modules()
        if (readers := _readers(name, block, where))
    ]
    attention = sum(kind != "mlp" for _, kind, _ in found)
    if not found or 2 * attention != len(found):
        raise ConfigError(
            f"ALoRE: {where} has {attention} attention and {len(found) - attention} MLP blocks whose input is known to "
            "go into linear layers only",
            f"choose another model.{where}.tune, or name the architecture's layers in ifas/model/alore.py",
        )
    for block, _, readers in found:
        linear = block.get_submodule(readers[0])
        width = int(linear.in_features)
        if width % section.alore_experts:
            raise ConfigError(
                f"ALoRE: {section.alore_experts} experts do not divide the width {width} of {where}",
                f"set model.{where}.alore_experts to a divisor",
            )
        adapter = Alore(
            width,
            experts=section.alore_experts,
            bottleneck=section.alore_bottleneck,
            scale=section.alore_scale,
            readers=readers,
        )
        block.add_module(CHILD, adapter.to(linear.weight.device, linear.weight.dtype))
        block.register_forward_pre_hook(_adapt, with_kwargs=True)


def merge(part: nn.Module) -> None:
    """Multiplies every adapter into the layers behind it and removes it: the part has its plain layers again."""
    for block in list(part.modules()):
        adapter = getattr(block, CHILD, None)
        if not isinstance(adapter, Alore):
            continue
        for name in adapter.readers:
            weight: Any = block.get_submodule(name).weight
            weight.data.copy_(adapter.fold(weight.data.detach()).detach())
        delattr(block, CHILD)
        for key in [k for k, hook in block._forward_pre_hooks.items() if hook is _adapt]:
            del block._forward_pre_hooks[key]
            del block._forward_pre_hooks_with_kwargs[key]


def _readers(name: str, block: nn.Module, where: str) -> tuple[str, ...]:
    """The linear layers behind the block's input; empty where the block is none that takes an adapter."""
    linears = {child for child, module in block.named_children() if isinstance(module, nn.Linear)}
    for readers in READERS.get(name.rpartition(".")[2], ()):
        if set(readers) <= linears:
            if strange := linears - set(readers) - INNER:
                raise ConfigError(
                    f"ALoRE: {where} has {name}.{min(strange)}, and it is not known whether it reads the block's input",
                    f"choose another model.{where}.tune, or name it in ifas/model/alore.py",
                )
            return readers
    return ()


def _adapt(block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Forward pre-hook: adapts the block's input once, wherever it is handed in (self-attention gets it twice)."""
    given = args[0] if args else kwargs["hidden_states"]
    adapted = block.get_submodule(CHILD)(given)
    return (
        tuple(adapted if a is given else a for a in args),
        {name: adapted if a is given else a for name, a in kwargs.items()},
    )
