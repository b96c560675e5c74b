"""A loaded model rewritten to compute the same faster. For inference only: it can't be trained or saved any more.
Afterwards only the language model's output at the last position is right; decoding needs no other.

- *Folding*: a BatchNorm in eval mode is a scale and a shift per channel, which the convolution before it takes over.
  The convolution also does its zero padding, and on a CPU its activation. So a map is written once, not four times.
- *Packing*: the matrices of a ViT and of the language model's head are laid out once for oneDNN's kernels. A plain
  product of a few rows with a matrix of a whole vocabulary is several times slower on some CPUs. A GELU that follows is
  done in the same pass.
- *Fusing*: on a GPU, see `fused_norm`.
- *Trimming*: the last layer's MLP runs on the last position only; its output at earlier ones is not used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ifas.model.fused_norm import fuse
from ifas.model.towers import ClipTower, Dinov2Tower, EfficientNetLite0Tower, SiglipTower


def speed_up(model: Any, rows: int, *, compiled: bool = False) -> Any:
    """Rewrites a model in place, in eval mode and on the device it will run on; returns it.

    Args:
        model: an `IfasModel`.
        rows: sequences that are decoded at once, for the layout of the head.
        compiled: the prefill will go through torch.compile, which has no code for packed matrices.
    """
    vit = isinstance(model.vision, ClipTower | SiglipTower | Dinov2Tower)
    if isinstance(model.vision, EfficientNetLite0Tower):
        fold(model.vision)
    elif vit and not compiled and _onednn(next(model.vision.parameters())):
        pack(model.vision, rows)
    if model.device.type == "cuda":
        fuse(model.language)
    last = model.language.get_decoder().layers[-1]
    if isinstance(getattr(last, "mlp", None), nn.Module):
        last.mlp = LastPosition(last.mlp)
    head = model.language.get_output_embeddings()
    if type(head) is nn.Linear and _onednn(head.weight):
        model.language.set_output_embeddings(PackedLinear(head, rows))
    return model


@torch.no_grad()
def fold(tower: EfficientNetLite0Tower) -> None:
    """Folds the tower's BatchNorms and paddings into its convolutions."""
    # The tower reads these from the norms that are removed.
    moments = [tower._moments(level) for level in range(len(tower.level_widths))]
    tower._moments = moments.__getitem__  # type: ignore[method-assign, assignment]
    net = tower.net
    steps = [(net, "_conv_stem", "_bn0", True), (net, "_conv_head", "_bn1", True)]
    for block in net._blocks:
        steps += [(block, "_expand_conv", "_bn0", True), (block, "_depthwise_conv", "_bn1", True)]
        steps += [(block, "_project_conv", "_bn2", False)]
    onednn = _onednn(net._conv_stem.weight)
    for owner, convolution, norm, active in steps:
        if not hasattr(owner, convolution):
            continue  # the first block widens nothing
        fused = _fused(getattr(owner, convolution), getattr(owner, norm), onednn)
        setattr(owner, convolution, ActiveConvolution(fused) if active and onednn else fused)
        setattr(owner, norm, nn.Identity())
    for owner in (net, *net._blocks):
        owner._swish = nn.Identity() if onednn else nn.ReLU6(inplace=True)


def pack(tower: ClipTower | SiglipTower | Dinov2Tower, rows: int) -> None:
    """Packs the tower's linear layers; see `PackedLinear`. Their plain matrices are dropped."""
    for block in list(tower.modules()):
        for name, layer in list(block.named_children()):
            if type(layer) is nn.Linear:
                active = name == "fc1" and tower.net.config.hidden_act == "gelu"
                packed = PackedLinear(layer, rows, "gelu" if active else "none")
                packed.register_parameter("weight", None)
                setattr(block, name, packed)
                if active:
                    block.activation_fn = nn.Identity()


def _onednn(weight: Tensor) -> bool:
    """Whether oneDNN computes with this weight, so that its own operators may be called."""
    return torch._C._has_mkldnn and weight.device.type == "cpu" and weight.dtype == torch.float32


def _fused(convolution: Any, norm: Any, onednn: bool) -> Any:
    """The convolution with its norm and its padding inside."""
    dtype = convolution.weight.dtype
    fused: Any = fuse_conv_bn_eval(convolution.float(), norm.float()).to(dtype)
    padding = getattr(fused, "static_padding", None)
    if isinstance(padding, nn.ZeroPad2d):
        left, right, top, bottom = padding.padding
        even = left == right and top == bottom
        if even or (onednn and right >= left and bottom >= top):
            # A convolution pads both sides alike: where it must not on the left, a column of zeros in the kernel does
            # it. A padded copy of a large map costs a CPU more than the wider kernel.
            fused.weight = nn.Parameter(F.pad(fused.weight, (right - left, 0, bottom - top, 0)), requires_grad=False)
            fused.kernel_size = tuple(fused.weight.shape[2:])
            fused.padding, fused.static_padding = (bottom, right), nn.Identity()
    return fused.to(memory_format=torch.channels_last)


class ActiveConvolution(nn.Module):
    """A float32 convolution on the CPU that is followed by a ReLU6, in one pass over its map.

    Args:
        convolution: without padding outside of it.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self._shape = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns (B, C', H', W')."""
        after = ("hardtanh", [0.0, 6.0], "")
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(x_BCHW, self.weight, self.bias, *self._shape, *after)
        return out


class LastPosition(nn.Module):
    """A module over (B, T, W) that maps each position by itself. It runs on the last position only; others are 0."""

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
        act: `none`, or `gelu`: what follows, in the same pass.
    """

    def __init__(self, linear: nn.Linear, rows: int, act: str = "none") -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)
        self._after: tuple[str, list[float], str] = (act, [], "none" if act == "gelu" else "")

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, *self._after)
        return out
