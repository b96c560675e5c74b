"""Fixtures of the evaluation tests."""

import pandas as pd
import pytest

from ifas.evaluation.predict import Predicted, predict
from tests.unit.evaluation.tiles import CONFIG, CUES, PROTOCOL, TRYING, BrightnessJudge, Pictures, make_dataset


@pytest.fixture(scope="session")
def dataset() -> tuple[pd.DataFrame, Pictures]:
    """Manifest and pictures; not to be changed."""
    return make_dataset()


@pytest.fixture
def predictions(dataset: tuple[pd.DataFrame, Pictures]) -> pd.DataFrame:
    """A fresh copy of what `predict` gives for the dataset."""
    return predict(BrightnessJudge(), *dataset, PROTOCOL, CONFIG, CUES).frame


@pytest.fixture(scope="session")
def trial(dataset: tuple[pd.DataFrame, Pictures]) -> Predicted:
    """Predictions with handled images; not to be changed."""
    return predict(BrightnessJudge(), *dataset, PROTOCOL, TRYING, CUES)
