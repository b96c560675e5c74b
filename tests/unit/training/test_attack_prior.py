"""What a trained model says whatever the image is: measured on development images, and kept with the model."""

from pathlib import Path

import pandas as pd
import pytest
from toy_training import ToyImages, config, manifest

from ifas.core.files import read_json
from ifas.core.imaging import decode
from ifas.faces.face import Face
from ifas.model.attack_named import prior
from ifas.model.build import build, save
from ifas.model.judge import Judge
from ifas.model.processor import PROCESSOR_FILE
from ifas.training.attack_prior import EACH, measure_prior


class Torn(ToyImages):
    """One of its images can't be decoded."""

    def read(self, shard: str, row: int) -> bytes:
        return b"torn" if row == 2 else super().read(shard, row)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model, processor = build(config().model, seed=2)
    processor.attacks = {"print": 0.5, "replay": 0.5}
    save(model, processor, tmp_path / "m")
    return tmp_path / "m"


def rows(*kinds: str) -> pd.DataFrame:
    """Development rows of these spoof types."""
    found = manifest(60)
    return pd.concat([found[found["spoof_type"] == kind] for kind in kinds]).assign(face_box=None)


def test_it_is_the_average_over_equally_many_images_of_each_attack(folder: Path) -> None:
    dev = rows("live", "print", "replay")
    few = dev[(dev["spoof_type"] != "replay") | (dev["row"] < 9)]  # three replays, twenty prints
    found = measure_prior(folder, few.sample(frac=1, random_state=1), Torn())
    judge = Judge.load(folder)
    assert found == judge.processor.attacks == read_json(folder / PROCESSOR_FILE)["attacks"]
    taken = [1, 4, 7, 5, 8]  # the first by their ids, without the one that is torn
    faces = [Face.whole(decode(ToyImages().read("", row))) for row in taken]
    pixels = next(judge._pixels(faces))
    wanted = prior(judge._namer.log_likelihoods(judge._start(pixels)[1], range(len(taken))))
    assert list(found.values()) == pytest.approx(wanted.tolist(), abs=1e-6)
    assert EACH >= 3


def test_it_stays_even_where_an_attack_has_no_development_image(folder: Path) -> None:
    before = (folder / PROCESSOR_FILE).read_bytes()
    for dev in (rows("live", "print"), rows("live"), rows("print", "replay").iloc[:0]):
        assert measure_prior(folder, dev, ToyImages()) == {"print": 0.5, "replay": 0.5}
    assert (folder / PROCESSOR_FILE).read_bytes() == before
