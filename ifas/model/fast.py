"""A loaded model rewritten to compute the same faster. For inference only: it can't be trained or saved any more.
Only the last position's output of the language model is right after it; decoding needs no other.

- *Folding*: a BatchNorm in eval mode is a scale and a shift per channel, which the convolution before it takes over;
  the zero padding of a convolution is its own where both sides are alike; activations write in place. A map is then
  read and written once, not four times.
- *Packing*: the language model's head is laid out once for oneDNN's kernels. A plain product of a few rows with a
  matrix of a whole vocabulary is several times slower on some CPUs.
- *Trimming*: nobody reads what the last layer's MLP makes of a prompt's earlier positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ifas.model.towers import EfficientNetLite0Tower


def speed_up(model: Any, rows: int) -> Any:
    """Rewrites a model in place, in eval mode and on the device it will run on; returns it.

    Args:
        model: an `IfasModel`.
        rows: sequences that are decoded at once, for the layout of the head.
    """
    if isinstance(model.vision, EfficientNetLite0Tower):
        fold(model.vision)
    last = model.language.get_decoder().layers[-1]
    if isinstance(getattr(last, "mlp", None), nn.Module):
        last.mlp = LastPosition(last.mlp)
    head = model.language.get_output_embeddings()
    plain = type(head) is nn.Linear and head.weight.device.type == "cpu" and head.weight.dtype == torch.float32
    if plain and torch._C._has_mkldnn:
        model.language.set_output_embeddings(PackedLinear(head, rows))
    return model


@torch.no_grad()
def fold(tower: EfficientNetLite0Tower) -> None:
    """Folds the tower's BatchNorms and paddings into its convolutions."""
    # The tower reads these from the norms that go.
    moments = [tower._moments(level) for level in range(len(tower.level_widths))]
    tower._moments = moments.__getitem__  # type: ignore[method-assign, assignment]
    net = tower.net
    pairs = [(net, "_conv_stem", "_bn0"), (net, "_conv_head", "_bn1")]
    for block in net._blocks:
        pairs += [(block, "_expand_conv", "_bn0"), (block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for owner, convolution, norm in pairs:
        if not hasattr(owner, convolution):
            continue  # the first block widens nothing
        fused = _fused(getattr(owner, convolution), getattr(owner, norm))
        setattr(owner, convolution, fused)
        setattr(owner, norm, nn.Identity())
    for module in net.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True


def _fused(convolution: Any, norm: Any) -> Any:
    dtype = convolution.weight.dtype
    fused: Any = fuse_conv_bn_eval(convolution.float(), norm.float()).to(dtype)
    padding = getattr(fused, "static_padding", None)
    if isinstance(padding, nn.ZeroPad2d) and len(set(padding.padding)) == 1:
        fused.padding, fused.static_padding = padding.padding[:2], nn.Identity()
    return fused.to(memory_format=torch.channels_last)


class LastPosition(nn.Module):
    """A module over (B, T, W) that maps each position by itself, run on the last one only; the others come out as 0."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x_BTW: Tensor) -> Tensor:
        """Returns (B, T, W)."""
        last_B1W: Tensor = self.module(x_BTW[:, -1:])
        return F.pad(last_B1W, (0, 0, x_BTW.shape[1] - 1, 0))


class PackedLinear(nn.Module):
    """A float32 linear layer on the CPU whose matrix is also kept in oneDNN's layout.

    Args:
        linear: its weight and bias are shared, not copied.
        rows: input rows (over all leading dimensions) that the layout is chosen for; others work as well.
    """

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out
