"""The levels of the tower are brought to one scale, whatever scale they come in."""

import torch

from ifas.model.connector import GloballyAwareConnector, LevelScale


def levels(n: int, seed: int = 0) -> list[torch.Tensor]:
    """Two levels that are nearly alike in all images, and far from 0."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, w, generator=generator) * 0.01 + torch.arange(w) * 10.0 for w in (6, 3)]


def test_mean_0_and_spread_1_over_the_images_that_were_measured() -> None:
    scale = LevelScale((6, 3))
    assert not scale.measured
    given = levels(200)
    for one, same in zip(scale(given), given, strict=True):
        assert torch.equal(one, same.clamp(-5, 5)), "until then, levels stay as they are, up to the limit"
    scale.measure(given)
    assert scale.measured
    for one, width in zip(scale(given), (6, 3), strict=True):
        assert one.shape == (200, width)
        torch.testing.assert_close(one.mean(0), torch.zeros(width), atol=2e-3, rtol=0)
        assert ((one.std(0) > 0.8) & (one.std(0) <= 1.0)).all()


def test_a_feature_that_never_moves_and_a_far_image_stay_bounded() -> None:
    scale = LevelScale((6, 3))
    given = levels(50)
    given[0][:, 2] = 7.0
    scale.measure(given)
    assert scale(given)[0][:, 2].abs().max() < 1e-3
    assert torch.cat(scale([level * 1e6 for level in given]), dim=1).abs().max() <= LevelScale.FAR


def test_the_moments_are_saved_and_no_weights_are_trained() -> None:
    sizes = {"queries": 2, "layers": 1, "heads": 2, "width": 8, "patch_width": 5, "out_width": 4}
    one, two = (GloballyAwareConnector(level_widths=(6, 3), **sizes) for _ in range(2))
    one.measure(levels(20))
    assert {"scale.shift", "scale.spread"} <= set(one.state_dict())
    assert not [name for name, _ in one.named_parameters() if name.startswith("scale")]
    two.load_state_dict(one.state_dict())
    shown = levels(3, seed=1)
    patches = torch.zeros(3, 4, 5)
    assert torch.equal(one(patches, shown), two(patches, shown))
    assert two.scale.measured
