import pytest

from ifas.core.config import load, profiles
from ifas.core.errors import ConfigError


@pytest.mark.parametrize("name", profiles())
def test_every_profile_loads(name):
    assert load(name).profile == name


def test_override_is_typed_and_deep():
    config = load("tiny", ["train.steps=3", "protocol.target_domains=[a, b]"])
    assert config.train.steps == 3
    assert config.protocol.target_domains == ("a", "b")


def test_file_extends_its_profile(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("profile: tiny\ntrain: {alpha: 0.5}\n")
    config = load(str(path))
    assert config.train.alpha == 0.5
    assert config.train.steps == load("tiny").train.steps


@pytest.mark.parametrize(
    ("override", "said"),
    [("train.stepz=3", "train.stepz"), ("train.alpha=2", "train.alpha"), ("train", "section.key=value")],
)
def test_wrong_override_names_the_key(override, said):
    with pytest.raises(ConfigError, match=said):
        load("tiny", [override])


@pytest.mark.parametrize(
    ("text", "said"), [("a: [", "valid YAML"), ("- 1\n", "mapping"), ("profile: nope\n", "unknown profile")]
)
def test_unusable_file(tmp_path, text, said):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load(str(path))


def test_unknown_profile_lists_the_known():
    with pytest.raises(ConfigError, match="laptop"):
        load("desktop")
