"""The tower sees an image once, and the answers stay the same."""

from pathlib import Path

import numpy as np
import pytest
from tiny_model import faces, tiny

from ifas.model.build import build, save
from ifas.model.judge import Judge
from ifas.model.remembered import Remembered


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("remembered") / "m"
    save(*build(tiny(), seed=5), place)
    return place


@pytest.mark.parametrize("most", [2**30, 20_000])
def test_scores_and_answers_are_those_without_memory(folder: Path, most: int) -> None:
    """Also where there is room for some images only, and an image comes twice in a batch."""
    shown = [*faces(7), faces(7)[2]]
    plain, remembering = Judge.load(folder), Judge.load(folder, remember=most)
    memory = remembering.model.see
    assert isinstance(memory, Remembered)
    seen: list[int] = []
    see = memory._see
    memory._see = lambda pixels: seen.append(len(pixels)) or see(pixels)
    np.testing.assert_allclose(remembering.judge(shown), plain.judge(shown), atol=1e-6)
    first = sum(seen)
    verdicts = [i % 2 == 0 for i in range(8)]
    assert remembering.explain(shown, verdicts) == plain.explain(shown, verdicts)
    again = sum(seen) - first
    assert (again == 0) == (most == 2**30)
    assert 0 < memory.bytes <= most
