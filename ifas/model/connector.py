"""Globally aware connector, GAC (I-FAS, arXiv 2501.01720).

`Q = [Q_P ; Linear(G_V)]`, and each layer, pre-norm and residual:

    Q'  = Q  + MSA(LN(Q))
    Q'' = Q' + MCA(LN(Q'), LN(X_V))
    X_T = Q'' + MLP(LN(Q''))

`Q_P` are learnable queries, `G_V` the global token of every level of the vision tower, `X_V` its patch features. All
`|Q_P| + L` tokens go to the language model. Our choices, not stated in the paper: sizes; each level's features are
brought to one scale first (`LevelScale`); a Linear for each level, or one for all (`level_linear`); MCA's
keys and values map from the patches' own width; LN(X_V) is the same for all layers, see `patch_norm`; the projection to
the language model's width is a LayerNorm and a Linear, scaled to its word embeddings; initialisation.

`LastTokenConnector` is what is left without GAC, for comparison. To add a connector, write a `Connector` and add a line
to `CONNECTORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ifas.core.errors import unknown_key


class Connector(nn.Module):
    """What the model needs of a connector: `forward` as in `GloballyAwareConnector`, a fixed number of tokens, and a
    last projection `project` to the width of the language model. `scale` is that of the levels it uses."""

    project: nn.Linear
    scale: LevelScale

    @property
    def tokens(self) -> int:
        """Tokens an image takes in the language model."""
        raise NotImplementedError

    def reset(self) -> None:
        """Initialises all parameters: matrices Xavier uniform, biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()

    def measure(self, levels: Sequence[Tensor]) -> None:
        """Measures the scale of the levels on B images, L tensors (B, D_l); see `LevelScale`."""
        self.scale.measure(levels[-len(self.scale.widths) :])

    def fill_branches(self) -> None:
        """Fills whatever `reset` left at zero with random weights, for adapters: they are factors of weights that stay
        as they are, and a factor of zero learns nothing."""

    def match_scale(self, std: float) -> None:
        """Rescales the fresh projection so that its outputs have standard deviation `std`, that of word embeddings."""
        width = self.project.in_features
        nn.init.normal_(self.project.weight, std=std / width**0.5)


class LevelScale(nn.Module):
    """Brings every feature of each level's global token to mean 0 and spread 1 over some training images.

    Class tokens of one layer are nearly alike: what tells two images apart is small beside what all have in common, and
    a connector that is trained for a few hundred steps hardly finds it. The moments are measured once, before the first
    step, and are saved with the weights.

    Args:
        widths: of each level.
    """

    #: Features further from the mean are cut off, in spreads.
    FAR = 5.0

    shift: Tensor
    spread: Tensor

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.register_buffer("shift", torch.zeros(sum(widths)))
        self.register_buffer("spread", torch.ones(sum(widths)))

    @property
    def measured(self) -> bool:
        """Whether `measure` was called, here or before the model was saved."""
        return not bool((self.spread == 1).all())

    def measure(self, levels: Sequence[Tensor]) -> None:
        """Sets the moments to those of B images, at least two: L tensors (B, D_l)."""
        values_BS = torch.cat(list(levels), dim=1).double()
        self.shift.copy_(values_BS.mean(dim=0))
        # A feature that never moves stays near 0 instead of being blown up.
        self.spread.copy_(values_BS.std(dim=0) + 1e-3)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """L tensors (B, D_l) -> the same, scaled."""
        # The moments stay float32 whatever the precision of the training.
        scaled_BS = (torch.cat(list(levels), dim=1) - self.shift) / self.spread
        scaled_BS = scaled_BS.clamp(-self.FAR, self.FAR).to(levels[0].dtype)
        return list(torch.split(scaled_BS, list(self.widths), dim=1))


class Attention(nn.Module):
    """Multi-head attention of (B, T, width) over a source (B, S, source_width); MSA when both are the same tensor."""

    def __init__(self, width: int, heads: int, source_width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BTW: Tensor, source_BSK: Tensor) -> Tensor:
        """Returns (B, T, width)."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x_BTW), self.key(source_BSK), self.value(source_BSK))
        )
        mixed_BHTD = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        out: Tensor = self.out(mixed_BHTD.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x_BTW: Tensor) -> Tensor:
        """Returns (B, T, width)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x_BTW)))
        return out


class ConnectorLayer(nn.Module):
    """One GAC layer; the equations of the module's docstring, in their order."""

    def __init__(
        self, width: int, heads: int, patch_width: int, mlp_ratio: float, dropout: float, *, norm_patches: bool
    ) -> None:
        super().__init__()
        self.norm_self = nn.LayerNorm(width)
        self.msa = Attention(width, heads, width, dropout)
        self.norm_cross = nn.LayerNorm(width)
        self.norm_patches = nn.LayerNorm(patch_width) if norm_patches else nn.Identity()
        self.mca = Attention(width, heads, patch_width, dropout)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, q_BTW: Tensor, patches_BND: Tensor) -> Tensor:
        """Returns X_T (B, T, width)."""
        normed = self.norm_self(q_BTW)
        q_BTW = q_BTW + self.msa(normed, normed)
        q_BTW = q_BTW + self.mca(self.norm_cross(q_BTW), self.norm_patches(patches_BND))
        x_BTW: Tensor = q_BTW + self.mlp(self.norm_mlp(q_BTW))
        return x_BTW


class GloballyAwareConnector(Connector):
    """Patch features and global tokens of the vision tower -> tokens of the language model.

    Args:
        queries: |Q_P|, number of learnable queries.
        layers, heads, width, mlp_ratio, dropout: of the GAC layers.
        level_widths: width of the global token of each of the L levels.
        patch_width: width D of the patch features.
        out_width: width of the language model.
        level_linear: "own": each level (of each view) has its Linear. "shared": one for all where their widths agree;
            nothing then tells a query which level it came from but its place among the language model's tokens.
        patch_norm: "shared": LN(X_V) has no weights, since the Linears of the keys and values behind it have them
            anyway, and is computed once for all layers. "own": each layer's LN has weights, as in older models. Both
            can compute the same. Where the tower is frozen, only those weights needed a gradient through the patches,
            the largest products of a step (`python -m benchmarks.connector`).
    """

    def __init__(
        self,
        *,
        queries: int,
        layers: int,
        heads: int,
        width: int,
        level_widths: Sequence[int],
        patch_width: int,
        out_width: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        level_linear: str = "shared",  # models that were saved before there was a choice
        patch_norm: str = "own",  # likewise
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(queries, width))
        self.level_widths = tuple(level_widths)
        self.scale = LevelScale(self.level_widths)
        shared = level_linear == "shared" and len(set(self.level_widths)) == 1
        distinct = self.level_widths[:1] if shared else self.level_widths
        self.levels = nn.ModuleList(nn.Linear(w, width) for w in distinct)
        self.layers = nn.ModuleList(
            ConnectorLayer(width, heads, patch_width, mlp_ratio, dropout, norm_patches=patch_norm == "own")
            for _ in range(layers)
        )
        self.patch_norm = patch_norm
        self.norm_out = nn.LayerNorm(width)
        self.project = nn.Linear(width, out_width)
        self.reset()

    @property
    def tokens(self) -> int:
        """|Q_P| + L, tokens an image takes in the language model."""
        return self.queries.shape[0] + len(self.level_widths)

    def reset(self) -> None:
        """Initialises all parameters: queries N(0, 0.02^2), the last matrix of each residual branch 0, the others as in
        `Connector`."""
        nn.init.normal_(self.queries, std=0.02)
        super().reset()
        for matrix in self._branch_ends():
            nn.init.zeros_(matrix)

    def fill_branches(self) -> None:
        """As in `Connector`: Xavier uniform."""
        for matrix in self._branch_ends():
            nn.init.xavier_uniform_(matrix)

    def _branch_ends(self) -> list[Tensor]:
        """The matrices that MSA, MCA and MLP of each layer end in."""
        return [
            end.weight
            for layer in self.modules()
            if isinstance(layer, ConnectorLayer)
            for end in (layer.msa.out, layer.mca.out, layer.mlp.fc2)
        ]

    def forward(self, patches_BND: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """X_V (B, N, D) and G_V, L tensors (B, D_l) -> (B, |Q_P| + L, out_width)."""
        levels = self.scale(levels)
        if len(self.levels) == 1:
            visual_BLW = self.levels[0](torch.stack(list(levels), dim=1))
        else:
            visual_BLW = torch.stack([f(g) for f, g in zip(self.levels, levels, strict=True)], dim=1)
        learnt_BPW = self.queries.to(visual_BLW.dtype).expand(visual_BLW.shape[0], -1, -1)
        q_BTW = torch.cat([learnt_BPW, visual_BLW], dim=1)
        if self.patch_norm == "shared":
            patches_BND = F.layer_norm(patches_BND, patches_BND.shape[-1:])
        for layer in self.layers:
            q_BTW = layer(q_BTW, patches_BND)
        out: Tensor = self.project(self.norm_out(q_BTW))
        return out


class LastTokenConnector(Connector):
    """The last level's global token alone, brought to the language model's width: one image token.

    No queries, no other level, no patches: the ablation "without GAC". LayerNorm and Linear are those at GAC's end.

    Args:
        level_widths: width of the global token of each level; only the last counts.
        out_width: width of the language model.
    """

    def __init__(self, *, level_widths: Sequence[int], out_width: int) -> None:
        super().__init__()
        self.scale = LevelScale(level_widths[-1:])
        self.norm_out = nn.LayerNorm(level_widths[-1])
        self.project = nn.Linear(level_widths[-1], out_width)
        self.reset()

    @property
    def tokens(self) -> int:
        """One."""
        return 1

    def forward(self, _patches_BND: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """G_V, L tensors (B, D_l) -> (B, 1, out_width)."""
        out: Tensor = self.project(self.norm_out(self.scale(levels[-1:])[0]))[:, None]
        return out


def _gac(sizes: Mapping[str, Any], level_widths: Sequence[int], patch_width: int, out_width: int) -> Connector:
    return GloballyAwareConnector(**sizes, level_widths=level_widths, patch_width=patch_width, out_width=out_width)


def _last_token(_sizes: Mapping[str, Any], level_widths: Sequence[int], _patch_width: int, out_width: int) -> Connector:
    return LastTokenConnector(level_widths=level_widths, out_width=out_width)


#: `model.connector.kind` -> connector of the given sizes, between a tower and a language model.
CONNECTORS: dict[str, Callable[[Mapping[str, Any], Sequence[int], int, int], Connector]] = {
    "gac": _gac,
    "last_token": _last_token,
}


def new_connector(
    sizes: Mapping[str, Any], *, level_widths: Sequence[int], patch_width: int, out_width: int
) -> Connector:
    """A fresh connector.

    Args:
        sizes: fields of `ConnectorConfig` but `lr`; without `kind`, as in models saved before there was a choice, GAC.
        level_widths, patch_width: of the tower.
        out_width: of the language model.

    Raises:
        ConfigError: unknown kind.
    """
    given = dict(sizes)
    kind = given.pop("kind", "gac")
    if kind not in CONNECTORS:
        raise unknown_key("connector", kind, CONNECTORS)
    return CONNECTORS[kind](given, level_widths, patch_width, out_width)
