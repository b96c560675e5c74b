"""The baselines of a run: where their scores lie, pinned by content, and what is checked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ifas.core import storage
from ifas.core.config import LINEAR_PROBE, EvaluateConfig, RunConfig, first_problem
from ifas.core.errors import ConfigError, DataError, IfasError
from ifas.core.files import sha256_tree

if TYPE_CHECKING:
    import pandas as pd


def names(config: RunConfig) -> list[str]:
    """Baselines that the run's evaluation will have."""
    probed = [LINEAR_PROBE] if probes(config) else []
    return [*probed, *config.evaluate.baselines]


def probes(config: RunConfig) -> bool:
    """Whether the linear probe is fitted: a tower that was trained would have learned from labels itself."""
    return config.evaluate.probe and config.model.vision.tune == "frozen"


def pinned(config: RunConfig) -> RunConfig:
    """The same run, each file of scores named by its content, so that no step can get another one.

    Raises:
        DataError: a file is not there.
    """
    places = {name: _pinned(place) for name, place in config.evaluate.baselines.items()}
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"baselines": places})})


def _pinned(place: str) -> str:
    path, sha256 = storage.unpinned(place)
    if sha256 or storage.is_remote(path):
        return storage.pin(place)
    # Steps may be started in another folder.
    return storage.pinned(str(Path(path).absolute()), sha256_tree(storage.fetch(path, Path())))


def hashes(config: RunConfig) -> dict[str, str]:
    """Name -> SHA-256 of its file. Raises DataError where one is not there, or is another than its pin says."""
    return {
        name: storage.unpinned(place)[1] or sha256_tree(storage.here(place))
        for name, place in config.evaluate.baselines.items()
    }


def tables(config: RunConfig) -> dict[str, pd.Series]:
    """Name -> its scores by sample_id. Raises DataError as `baselines.read_scores` and `storage.here`."""
    from ifas.evaluation.baselines import read_scores

    return {name: read_scores(storage.here(place), name) for name, place in config.evaluate.baselines.items()}


def with_baselines(config: RunConfig, given: Mapping[str, str]) -> RunConfig:
    """The same run with more files of scores: name -> path or URI.

    Raises:
        ConfigError: a name that can't be one.
    """
    both = {**config.evaluate.baselines, **given}
    try:
        evaluate = EvaluateConfig.model_validate({**config.evaluate.model_dump(), "baselines": both})
    except ValidationError as error:
        raise ConfigError(
            f"--baseline: {first_problem(error)}", "a name has letters, digits, '.', '-' and '_', at most 40"
        ) from error
    return config.model_copy(update={"evaluate": evaluate})


def faults(config: RunConfig, here: bool) -> Iterator[IfasError]:
    """What is wrong with the files themselves.

    Args:
        here: whether the run takes place on this machine; else every pod must be able to fetch them.
    """
    from ifas.evaluation.baselines import read_scores

    for name, place in config.evaluate.baselines.items():
        if not here and not storage.is_remote(place):
            yield ConfigError(
                f"evaluate.baselines.{name} is {place}, a file that no pod has",
                "upload it to the object store, and name its URI",
            )
            continue
        try:
            read_scores(storage.here(place), name)
        except IfasError as error:
            yield error


def faults_of_rows(config: RunConfig, rows: pd.DataFrame) -> Iterator[IfasError]:
    """What does not fit the images of the dataset; files that can't be read are told by `faults`."""
    from ifas.evaluation.baselines import check_ids, coverage

    for name, scores in _readable(config):
        try:
            check_ids(scores, name, rows["sample_id"])
        except DataError as error:
            yield error
            continue
        test = coverage(rows, scores, config.protocol)["test"]
        if test["missing"] == test["n"]:
            yield DataError(
                f"baseline {name} has no score of any of the {test['n']} test images: nothing can be compared",
                "give it scores of the test split of the protocol's domains",
            )


def notes(config: RunConfig, rows: pd.DataFrame) -> Iterator[str]:
    """How many images of dev and test each file covers, for people."""
    from ifas.evaluation.baselines import coverage

    for name, scores in _readable(config):
        found = coverage(rows, scores, config.protocol)
        told = [f"{one['n'] - one['missing']} of {one['n']} {split} images" for split, one in found.items()]
        alone = "" if found["dev"]["missing"] < found["dev"]["n"] else "; without dev scores it has no threshold"
        yield f"baseline {name} scores {' and '.join(told)}{alone}"


def _readable(config: RunConfig) -> Sequence[tuple[str, pd.Series]]:
    from ifas.evaluation.baselines import read_scores

    found = []
    for name, place in config.evaluate.baselines.items():
        try:
            found.append((name, read_scores(storage.here(place), name)))
        except IfasError:
            continue
    return found
