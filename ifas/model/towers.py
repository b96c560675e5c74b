"""Vision towers: pixels -> patch features X_V and one global token per level G_V.

To add a tower, write a class like those below and add a line to `TOWERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ifas.core.errors import unknown_key


class VisionTower(Protocol):
    """What the connector needs to know of a tower. Attributes are widths in features."""

    level_widths: tuple[int, ...]
    patch_width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, pixel_values: Tensor) -> tuple[Tensor, list[Tensor]]:
        """uint8 (B, 3, H, W) -> X_V (B, N, patch_width) and G_V, L tensors (B, level_widths[l])."""
        ...


def normalise(pixels_BCHW: Tensor, tower: VisionTower, dtype: torch.dtype) -> Tensor:
    """uint8 pixels -> (x - mean) / std in `dtype`; mean and std are in units of 0..255."""
    mean = torch.tensor(tower.mean, device=pixels_BCHW.device).view(3, 1, 1)
    std = torch.tensor(tower.std, device=pixels_BCHW.device).view(3, 1, 1)
    return ((pixels_BCHW.float() - mean) / std).to(dtype)


class ClipTower(nn.Module):
    """CLIP's ViT. X_V: last layer's patch tokens. G_V: class token after every encoder layer, as in the paper.

    Which layer gives X_V is not stated in the paper.
    """

    mean = (122.7709383, 116.7460125, 104.09373615)
    std = (68.5005327, 66.6321579, 70.32316305)

    def __init__(self, config: dict[str, Any]) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModel

        super().__init__()
        shape = CLIPVisionConfig(**config)
        self.net = CLIPVisionModel(shape)
        self.level_widths = (shape.hidden_size,) * shape.num_hidden_layers
        self.patch_width: int = shape.hidden_size

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `VisionTower`."""
        x_BCHW = normalise(pixel_values, self, self.net.embeddings.class_embedding.dtype)
        hidden = self.net(pixel_values=x_BCHW, output_hidden_states=True).hidden_states[1:]
        return hidden[-1][:, 1:], [h_BSD[:, 0] for h_BSD in hidden]


class SiglipTower(nn.Module):
    """SigLIP's ViT. X_V: last layer's tokens, before the closing norm as for CLIP. Our choice, as the paper uses CLIP:
    SigLIP has no class token, so G_V is the mean over all tokens after every encoder layer.

    Its attention-pooling head, which sees the last layer only, is not built.
    """

    mean = (127.5, 127.5, 127.5)
    std = (127.5, 127.5, 127.5)

    def __init__(self, config: dict[str, Any]) -> None:
        from transformers import SiglipVisionConfig, SiglipVisionModel

        super().__init__()
        shape = SiglipVisionConfig(**config, vision_use_head=False)
        self.net = SiglipVisionModel(shape)
        self.level_widths = (shape.hidden_size,) * shape.num_hidden_layers
        self.patch_width: int = shape.hidden_size

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `VisionTower`."""
        x_BCHW = normalise(pixel_values, self, self.net.embeddings.patch_embedding.weight.dtype)
        hidden = self.net(pixel_values=x_BCHW, output_hidden_states=True).hidden_states[1:]
        return hidden[-1], [h_BND.mean(dim=1) for h_BND in hidden]


class Dinov2Tower(nn.Module):
    """DINOv2's ViT. X_V: last layer's patch tokens after the closing norm, which is how DINOv2's patch features are
    published; before it, five channels make up a quarter of a token. G_V: class token after every layer, as in the
    paper.

    Position embeddings are those of `image_size`: `vision.load_tower` brings published ones to it. Models with register
    tokens are of another type, which is refused.
    """

    mean = (123.675, 116.28, 103.53)
    std = (58.395, 57.12, 57.375)

    def __init__(self, config: dict[str, Any]) -> None:
        from transformers import Dinov2Config, Dinov2Model

        super().__init__()
        # The mask token stands for hidden patches in DINOv2's own training; here it would be a weight without use.
        shape = Dinov2Config(**config, use_mask_token=False)
        self.net = Dinov2Model(shape)
        self.level_widths = (shape.hidden_size,) * shape.num_hidden_layers
        self.patch_width: int = shape.hidden_size

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `VisionTower`."""
        x_BCHW = normalise(pixel_values, self, self.net.embeddings.cls_token.dtype)
        out = self.net(pixel_values=x_BCHW, output_hidden_states=True)
        return out.last_hidden_state[:, 1:], [h_BSD[:, 0] for h_BSD in out.hidden_states[1:]]


class EfficientNetLite0Tower(nn.Module):
    """EfficientNet-Lite0. X_V: the last map, 7x7x1280 at 224 px.

    A convolutional network has no class token, and GAC needs one global token per level: the pooled (spatial mean)
    output of each of the seven stages stands in for the class token of each layer. Stages end without an activation or
    a norm; over the demo's pictures their channels have means of -10 to 8 and spreads of 0.2 to 3. Each is brought to
    one scale by the moments in the last BatchNorms of its blocks. A picture's mean varies less than its pixels do,
    hence `POOLED`.
    """

    #: Spread of a channel's pixels over that of its mean over a picture; 2 to 6, by stage, on the demo's pictures.
    POOLED = 3.0

    mean = (127.0, 127.0, 127.0)
    std = (128.0, 128.0, 128.0)

    def __init__(self, config: dict[str, Any]) -> None:
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__()
        self.net = EfficientNet.from_name("efficientnet-lite0", image_size=config["image_size"])
        self.net._fc = nn.Identity()
        stages = self.net._blocks_args
        ends, count = [], 0
        for index, stage in enumerate(stages):
            # As in the package: Lite0 has depth coefficient 1, so a stage has as many blocks as it says.
            count += stage.num_repeat
            ends.append(count - 1)
            if index == len(stages) - 1 and count != len(self.net._blocks):
                raise ValueError(f"EfficientNet has {len(self.net._blocks)} blocks, its stages add up to {count}")
        self.ends = tuple(ends)
        self.level_widths = tuple(int(self.net._blocks[e]._project_conv.out_channels) for e in ends)
        self.patch_width = int(self.net._conv_head.out_channels)

    def train(self, mode: bool = True) -> EfficientNetLite0Tower:
        """Batch statistics would depend on how a batch is split over ranks: BatchNorm always uses its running ones."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `VisionTower`."""
        net = self.net
        pixels_BCHW = normalise(pixel_values, self, net._conv_stem.weight.dtype)
        # Channels last: on a CPU the 1x1 convolutions are then plain matrix products.
        x = net._swish(net._bn0(net._conv_stem(pixels_BCHW.contiguous(memory_format=torch.channels_last))))
        levels: list[Tensor] = []
        for index, block in enumerate(net._blocks):
            x = block(x)
            if index in self.ends:
                shift, scale = self._moments(len(levels))
                levels.append((x.mean(dim=(2, 3)) - shift) / scale)
        patches_BDHW = net._swish(net._bn1(net._conv_head(x)))
        return patches_BDHW.flatten(2).transpose(1, 2), levels

    def _moments(self, level: int) -> tuple[Tensor, Tensor]:
        """Mean and spread of the pooled channels of a stage: its blocks are added up, so their moments are, too."""
        first = self.ends[level - 1] + 1 if level else 0
        norms = [self.net._blocks[i]._bn2 for i in range(first, self.ends[level] + 1)]
        shift = torch.stack([n.bias.detach() for n in norms]).sum(0)
        spread = torch.stack([n.weight.detach() ** 2 for n in norms]).sum(0).sqrt()
        return shift, spread / self.POOLED + 1e-3


TOWERS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "clip": ClipTower,
    "siglip": SiglipTower,
    "dinov2": Dinov2Tower,
    "efficientnet-lite0": EfficientNetLite0Tower,
}


def new_tower(kind: str, config: dict[str, Any]) -> Any:
    """A tower with random weights.

    Args:
        kind: key of `TOWERS`.
        config: `image_size` in pixels, and for a ViT the fields of its config in transformers.

    Raises:
        ConfigError: unknown kind.
    """
    if kind not in TOWERS:
        raise unknown_key("vision tower", kind, TOWERS)
    return TOWERS[kind](config)
