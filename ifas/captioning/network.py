"""The captioner as a small network: picture and measurements in, words out.

A convolutional stem turns the picture into tokens, the measurements become tokens beside them, and a causal
transformer decoder with cross-attention writes the words. Under half a million parameters with the default sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ifas.captioning.words import END, PAD, START, UNKNOWN

#: One attention layer's keys and values, each (B, heads, S, width / heads).
KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """Sizes of the network."""

    vocabulary: int
    measurements: int
    channels: int = 4
    side: int = 96
    width: int = 96
    layers: int = 2
    heads: int = 4
    longest: int = 64
    measurement_tokens: int = 4
    drop: float = 0.2
    hide_picture: float = 0.5


class Attention(nn.Module):
    """Multi-head attention from x (B, T, D) to cached or given keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys_values(self, source: Tensor) -> KeysValues:
        """Keys and values of a source (B, S, D)."""
        key, value = self.key_value(source).chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def forward(self, x: Tensor, keys_values: KeysValues, causal: bool = False) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        key, value = keys_values
        mixed = F.scaled_dot_product_attention(self._split(self.query(x)), key, value, is_causal=causal)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result

    def _split(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        return x.view(batch, length, self.heads, width // self.heads).transpose(1, 2)


class DecoderLayer(nn.Module):
    """Pre-norm: causal self-attention, cross-attention to the picture, feed-forward; all residual."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        width = shape.width
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own = Attention(width, shape.heads)
        self.cross = Attention(width, shape.heads)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.drop = nn.Dropout(shape.drop)

    def forward(self, x: Tensor, seen: KeysValues, past: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """x (B, T, D), keys and values of the picture, and of the words before x; returns those with x as well."""
        normed = self.norms[0](x)
        keys_values = self.own.keys_values(normed)
        if past is not None:
            keys_values = (torch.cat([past[0], keys_values[0]], 2), torch.cat([past[1], keys_values[1]], 2))
        x = x + self.drop(self.own(normed, keys_values, causal=past is None))
        x = x + self.drop(self.cross(self.norms[1](x), seen))
        x = x + self.drop(self.feed(self.norms[2](x)))
        return x, keys_values


class CaptionNetwork(nn.Module):
    """Writes a caption for a picture and its measurements."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        # Patches of 4 px at once, then two halvings: side / 16 tokens a side.
        stages = ((shape.channels, 24, 4, 4), (24, 48, 3, 2), (48, width, 3, 2))
        self.stem = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, kernel, stride, padding=kernel % 2), nn.GroupNorm(8, b), nn.GELU())
                for a, b, kernel, stride in stages
            )
        )
        self.places = nn.Parameter(torch.randn((shape.side // 16) ** 2, width) * 0.02)
        self.measured = nn.Sequential(
            nn.Linear(shape.measurements, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, shape.measurement_tokens * width),
        )
        self.words = nn.Embedding(shape.vocabulary, width)
        nn.init.normal_(self.words.weight, std=0.05)
        self.positions = nn.Parameter(torch.randn(shape.longest, width) * 0.02)
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(width)

    def encode(self, pictures: Tensor, measurements: Tensor) -> Tensor:
        """Pictures (B, C, side, side) about 0 and scaled measurements (B, M) -> tokens (B, S, D).

        In training, the picture of a share of the samples is hidden. Else the stem would memorise the few pictures,
        and the network would not learn to use the measurements, which carry over to other domains.
        """
        tokens = self.stem(pictures).flatten(2).transpose(1, 2) + self.places
        if self.training and self.shape.hide_picture:
            shown = torch.rand(len(tokens), 1, 1) >= self.shape.hide_picture
            tokens = tokens * shown
        numbers = self.measured(measurements).view(len(tokens), self.shape.measurement_tokens, self.shape.width)
        return torch.cat([numbers, tokens], dim=1)

    def forward(self, pictures: Tensor, measurements: Tensor, ids: Tensor) -> Tensor:
        """Logits (B, T, V) for the word after each of `ids` (B, T)."""
        seen = self.encode(pictures, measurements)
        logits, _ = self._step(ids, 0, [layer.cross.keys_values(seen) for layer in self._layers()], None)
        return logits

    def loss(self, pictures: Tensor, measurements: Tensor, ids: Tensor) -> Tensor:
        """Mean cross-entropy of the next word over all words that are not padding. `ids` (B, T) begin with start."""
        logits = self(pictures, measurements, ids[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD)

    @torch.no_grad()
    def write(self, pictures: Tensor, measurements: Tensor) -> list[list[int]]:
        """Greedy captions as word ids, without start, up to and with end."""
        seen = self.encode(pictures, measurements)
        cross = [layer.cross.keys_values(seen) for layer in self._layers()]
        past: list[KeysValues] | None = None
        last = torch.full((len(pictures), 1), START)
        written: list[Tensor] = []
        ended = torch.zeros(len(pictures), dtype=torch.bool)
        for place in range(self.shape.longest - 1):
            logits, past = self._step(last, place, cross, past)
            scores = logits[:, -1]
            scores[:, [PAD, START, UNKNOWN]] = -torch.inf
            last = scores.argmax(-1, keepdim=True)
            written.append(last)
            ended |= last[:, 0] == END
            if bool(ended.all()):
                break
        rows: list[list[int]] = torch.cat(written, 1).tolist()
        return [row[: row.index(END) + 1] if END in row else row for row in rows]

    def _step(
        self, ids: Tensor, place: int, cross: list[KeysValues], past: list[KeysValues] | None
    ) -> tuple[Tensor, list[KeysValues]]:
        x = self.words(ids) + self.positions[place : place + ids.shape[1]]
        kept = []
        for i, layer in enumerate(self.layers):
            x, keys_values = layer(x, cross[i], past[i] if past else None)
            kept.append(keys_values)
        return F.linear(self.norm(x), self.words.weight), kept

    def _layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]
