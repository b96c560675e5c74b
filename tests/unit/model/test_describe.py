"""The large profiles, sized on the meta device without a download."""

import pytest

from ifas.core.config import load
from ifas.model.build import describe


@pytest.mark.parametrize(
    ("profile", "vision", "language", "levels"),
    # Published sizes, in millions: CLIP ViT-B/16 86 and ViT-L/14-336 304 (vision part), Qwen2.5 0.49 B and 7.62 B.
    [("base", 86, 494, 12), ("large", 304, 7616, 24)],
)
def test_base_and_large(profile: str, vision: int, language: int, levels: int) -> None:
    config = load(profile).model
    sizes = describe(config)
    assert round(sizes["vision"]["parameters"] / 1e6) == vision
    assert round(sizes["language"]["parameters"] / 1e6) == language
    assert sizes["levels"] == levels
    assert sizes["image_tokens"] == config.connector.queries + 2 * levels
    assert sizes["vision"]["trainable"] == 0
    assert sizes["connector"]["trainable"] == sizes["connector"]["parameters"] > 0
    # LoRA: rank * (in + out) per target and layer.
    shape = {"base": (896, 128, 24, 16), "large": (3584, 512, 28, 64)}[profile]
    width, kv, layers, rank = shape
    assert sizes["language"]["trainable"] == layers * rank * 2 * (2 * width + width + kv)


@pytest.mark.parametrize(("size", "million"), [("small", 22), ("base", 87), ("large", 304)])
def test_dinov2_at_its_published_size(size: str, million: int) -> None:
    vision = ("kind=dinov2", f"source=facebook/dinov2-{size}", "image_size=518")
    sizes = describe(load("base", [f"model.vision.{setting}" for setting in vision]).model)
    assert round(sizes["vision"]["parameters"] / 1e6) == million
    assert sizes["levels"] == {"small": 12, "base": 12, "large": 24}[size]


def test_laptop_without_its_packages_weights() -> None:
    sizes = describe(load("laptop").model)
    assert sizes["levels"] == 12
    assert sizes["vision_width"] == 384
    assert sizes["language_width"] == 96
