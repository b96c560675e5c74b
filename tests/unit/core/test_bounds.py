"""Every number of a configuration has limits, and a value outside them is reported."""

from collections.abc import Iterator
from typing import Any, get_args

import annotated_types
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from ifas.core.config import RunConfig, load, profiles
from ifas.core.errors import ConfigError
from ifas.core.imaging import ImageLimits
from ifas.promotion.policy import Rule, builtin_policies, load_policy
from ifas.serving.settings import ServingSettings
from ifas.trigger import rules as trigger


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from models(field.annotation)


def numbers(annotation: Any, metadata: list[Any], where: str) -> Iterator[tuple[str, list[Any]]]:
    """Each number in a field's type, also inside Optional, dict and tuple, with its own limits."""
    if annotation in (int, float):
        yield where, metadata
    inner = get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        metadata, inner = [*annotation.__metadata__], inner[:1]
        metadata = [one for part in metadata for one in getattr(part, "metadata", [part])]
    for one in inner:
        if one is not annotation and not isinstance(one, str | int):
            yield from numbers(one, metadata, where)


def fields() -> Iterator[tuple[str, list[Any]]]:
    for root in (RunConfig, ImageLimits, Rule, ServingSettings, trigger.Rule, trigger.Clients, trigger.Trigger):
        for model in models(root):
            for name, field in model.model_fields.items():
                yield from numbers(field.annotation, list(field.metadata), f"{model.__name__}.{name}")


def test_every_number_has_a_lower_and_an_upper_limit() -> None:
    found = list(fields())
    assert len(found) > 70
    for where, limits in found:
        low = any(isinstance(one, annotated_types.Ge | annotated_types.Gt) for one in limits)
        high = any(isinstance(one, annotated_types.Le | annotated_types.Lt) for one in limits)
        assert low, f"{where} has no lower limit: {limits}"
        assert high, f"{where} has no upper limit: {limits}"


def test_the_walk_sees_an_unlimited_number() -> None:
    class Bare(BaseModel):
        table: dict[str, float] | None = None

    assert list(numbers(Bare.model_fields["table"].annotation, [], "table")) == [("table", [])]


@pytest.mark.parametrize("number", ["nan", ".inf", "-.inf", "-2", "1.0e+300"])
def test_no_number_field_takes_a_number_out_of_all_bounds(number: str) -> None:
    """From outside: every leaf of the configuration that holds a number refuses these."""

    def leaves(tree: dict[str, Any], above: str = "") -> Iterator[str]:
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{above}{key}.")
            elif isinstance(value, int | float) and not isinstance(value, bool):
                yield f"{above}{key}"

    config = load("tiny")
    found = list(leaves(config.model_dump(mode="json")))
    assert len(found) > 60
    for key in found:
        with pytest.raises(ConfigError) as caught:
            load("tiny", [f"{key}={number.replace('nan', '.nan')}"])
        assert key in caught.value.what


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("evaluate.bootstrap=-1", "evaluate.bootstrap: Input should be greater than or equal to 0, not -1"),
        ("evaluate.max_apcer=7", "evaluate.max_apcer: Input should be less than or equal to 1, not 7"),
        ("validation.max_hamming=64", "validation.max_hamming"),
        ("package.limits.max_pixels=0", "package.limits.max_pixels"),
        ("train.species_weights={print: -1}", "train.species_weights.print"),
        ("model.vision.shape={hidden_size: -3}", "model.vision.shape.hidden_size"),
        ("package.name=My Bento", "package.name"),
        ("gate.product=", "gate.product"),
    ],
)
def test_what_was_accepted_is_refused_by_name(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("tiny", [override])
    assert said in caught.value.what
    assert caught.value.fix


@pytest.mark.parametrize("limit", ["max", "min", "max_increase", "max_drop"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_limits_of_a_policy_are_shares(limit: str, value: float) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Rule).validate_python({"id": "a", "metric": "auc", "slice": "target", "reason": "r", limit: value})


def test_what_is_shipped_still_loads() -> None:
    assert [load(name).profile for name in profiles()] == profiles()
    assert [load_policy(f"builtin:{name}").name for name in builtin_policies()] == builtin_policies()
