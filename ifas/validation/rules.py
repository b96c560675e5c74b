"""The rules: what must be true of a captioned manifest, in words and as an expectation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ifas.core.config import ValidateConfig
from ifas.core.errors import ConfigError
from ifas.core.phash import COARSE_BITS, FINE_BITS, HASH_DIGITS, HASH_FORMAT, MOST_FINE_BITS
from ifas.core.taxonomy import PAI_SPECIES, SPLITS, SPOOF_TYPES
from ifas.validation import derived, leaks

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["blocking", "advisory"]
Table = Literal["manifest", "columns", "images", "attack images", "classes", "splits", "domains", "spoof types"]

#: The report notes it if a smaller share of attack captions names the medium.
LEAST_NAMED = 0.9
#: The report notes a domain with fewer images than this share of the largest domain's.
LEAST_BALANCE = 0.1

NULL = "ExpectColumnValuesToBeNull"
BETWEEN = "ExpectColumnValuesToBeBetween"
IN_SET = "ExpectColumnValuesToBeInSet"
REGEX = "ExpectColumnValuesToMatchRegex"
UNIQUE = "ExpectColumnValuesToBeUnique"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule.

    Args:
        title: what must be true, in plain words.
        why: what goes wrong otherwise.
        table: what is counted: one row of this table of `TABLES` is one case.
        needs: columns of the manifest without which the rule can't be checked.
        values: the column of the table that is judged, or how to derive it.
        expectation: class of Great Expectations, and `arguments` beside the column.
        expected: the expectation in words.
        fault: text for a case that breaks the rule; `{value}` is the judged value, `{id}` names the case.
    """

    id: str
    title: str
    why: str
    table: Table
    needs: tuple[str, ...]
    values: str | Callable[[pd.DataFrame], pd.Series]
    expectation: str = NULL
    arguments: dict[str, Any] = field(default_factory=dict)
    expected: str
    fault: str = "{value}"
    severity: Severity = "blocking"
    demoted: bool = False


#: Name of a table -> how it is derived from the manifest and the protocol's source domains. Each has a column `id`.
#: The table of columns is derived first, since it decides which rules can be checked.
TABLES: dict[Table, Callable[[pd.DataFrame, Sequence[str]], pd.DataFrame]] = {
    "manifest": lambda rows, _: _one_row(rows),
    "images": lambda rows, _: _with_id(rows),
    "attack images": lambda rows, _: _with_id(rows[rows["label"] == "spoof"]),
    "classes": derived.class_table,
    "splits": derived.split_table,
    "domains": derived.domain_table,
    "spoof types": derived.exposure_table,
}


def rules(config: ValidateConfig) -> tuple[Rule, ...]:
    """All rules in the order of the report, those in `config.advisory` demoted.

    Raises:
        ConfigError: `config.advisory` names a rule that does not exist.
    """
    every = (*_schema(), *_values(), *_leaks(config), *_classes(config), *_captions(), *_notes())
    known = [rule.id for rule in every]
    unknown = [name for name in config.advisory if name not in known]
    if unknown:
        raise ConfigError(
            f"validation.advisory names no rule: {', '.join(unknown)}", f"use some of: {', '.join(sorted(known))}"
        )
    return tuple(
        replace(rule, severity="advisory", demoted=True)
        if rule.id in config.advisory and rule.severity == "blocking"
        else rule
        for rule in every
    )


def _schema() -> tuple[Rule, ...]:
    return (
        Rule(
            id="not-empty",
            title="The manifest holds images",
            why="there is nothing to train on",
            table="manifest",
            needs=(),
            values="images",
            expectation=BETWEEN,
            arguments={"min_value": 1},
            expected="at least 1 image",
            fault="{value} images",
        ),
        Rule(
            id="columns-present",
            title="Every column of a captioned manifest is there",
            why="later steps read these columns",
            table="columns",
            needs=(),
            values="missing",
            expected="no column missing",
            fault="column {id} is {value}",
        ),
        Rule(
            id="column-types",
            title="Every column holds the type it declares",
            why="later steps compute with these values",
            table="columns",
            needs=(),
            values="type",
            expected="the declared type in every column",
            fault="column {id} holds {value}",
        ),
        Rule(
            id="values-present",
            title="No required value is missing",
            why="a row without them can't be placed in a split, a class or a shard",
            table="columns",
            needs=(),
            values="nulls",
            expected="no null in a required column",
            fault="column {id} has {value}",
        ),
    )


def _values() -> tuple[Rule, ...]:
    def rule(id: str, title: str, why: str, column: str, expected: str, kind: str = NULL, **arguments: Any) -> Rule:
        return Rule(
            id=id,
            title=title,
            why=why,
            table="images",
            needs=(column,),
            values=column,
            expectation=kind,
            arguments=arguments,
            expected=expected,
            fault=f"{column} is {{value}}" + (", and other rows have it too" if kind == UNIQUE else ""),
        )

    def derive(id: str, title: str, why: str, columns: str, values: Any, expected: str) -> Rule:
        needs = tuple(columns.split())
        return Rule(id=id, title=title, why=why, table="images", needs=needs, values=values, expected=expected)

    lost = "the image would not be found in its shard"
    kinds = "a value outside the taxonomy belongs to no class"
    return (
        rule(
            *("sample-id-format", "Every sample id is a SHA-256", "ids are how images are found and compared"),
            *("sample_id", "64 hex digits", REGEX),
            regex="^[0-9a-f]{64}$",
        ),
        rule(
            *("sample-id-unique", "No sample id occurs twice", "an image would count twice"),
            *("sample_id", "each once", UNIQUE),
        ),
        derive(
            *("image-size", "Every image has a width and a height", "there is nothing to look at"),
            *("width height", derived.size, "1 pixel or more each way"),
        ),
        derive(
            *("face-box-inside", "Every face box lies inside its image", "the crop would miss the face"),
            *("face_box width height", derived.face_box, "x, y, w, h inside the image, or no box"),
        ),
        rule(
            *("frame-index", "No frame index is negative", "frames are counted from 0"),
            *("frame_index", "0 or more, or none", BETWEEN),
            min_value=0,
        ),
        rule("row-index", "No shard row is negative", lost, "row", "0 or more", BETWEEN, min_value=0),
        derive(
            *("place-unique", "No two rows point to the same place in a shard", "one of them has the wrong image"),
            *("dataset shard row", derived.place, "each place once"),
        ),
        rule(
            *("phash-format", f"Every perceptual hash is {HASH_DIGITS} hex digits", "near-duplicates are found by it"),
            *("phash", f"{HASH_DIGITS} hex digits", REGEX),
            regex=f"^{HASH_FORMAT}$",
        ),
        rule("split-known", "Every split is known", kinds, "split", _one_of(SPLITS), IN_SET, value_set=list(SPLITS)),
        rule(
            *("label-known", "Every label is known", kinds, "label", "live or spoof", IN_SET),
            value_set=["live", "spoof"],
        ),
        rule(
            *("spoof-type-known", "Every spoof type is known", kinds, "spoof_type", _one_of(SPOOF_TYPES), IN_SET),
            value_set=list(SPOOF_TYPES),
        ),
        rule(
            *("species-known", "Every PAI species is known", kinds, "pai_species"),
            *("a species of the taxonomy (ifas/core/taxonomy.py)", IN_SET),
            value_set=list(PAI_SPECIES),
        ),
        derive(
            *("label-agrees", "Label and spoof type agree", "an attack would be learnt as bona fide"),
            *("label spoof_type", derived.label, "live with live, spoof with an attack"),
        ),
        derive(
            *("species-agrees", "PAI species and spoof type agree", "error rates per species would be wrong"),
            *("pai_species spoof_type", derived.species, "the species' own spoof type"),
        ),
        derive(
            *("licence-present", "Every image has a licence", "it may not be used without one"),
            *("licence", derived.blank("licence"), "a licence"),
        ),
    )


def _leaks(config: ValidateConfig) -> tuple[Rule, ...]:
    def leak(id: str, title: str, columns: str, values: Callable[[pd.DataFrame], pd.Series], expected: str) -> Rule:
        why = "the model would be tested on what it has learnt by heart"
        needs = tuple(columns.split())
        return Rule(id=id, title=title, why=why, table="images", needs=needs, values=values, expected=expected)

    return (
        leak(
            *("subject-in-one-split", "No person is in two splits", "dataset subject_id split"),
            lambda rows: leaks.in_several_splits(rows, "subject_id"),
            "all images of a person in one split",
        ),
        leak(
            *("media-in-one-split", "No video or photo is in two splits", "dataset media_id split"),
            lambda rows: leaks.in_several_splits(rows, "media_id"),
            "all frames of a medium in one split",
        ),
        leak(
            *("duplicates-in-one-split", "No image has a near-duplicate in another split", "sample_id phash split"),
            lambda rows: leaks.near_duplicates(rows, config.max_hamming),
            f"more than {config.max_hamming} of {COARSE_BITS} bits, or {MOST_FINE_BITS} of {FINE_BITS} finer ones, "
            "between perceptual hashes of different splits",
        ),
    )


def _classes(config: ValidateConfig) -> tuple[Rule, ...]:
    return (
        Rule(
            id="splits-present",
            title="The source domains have training and development data",
            why="the model is trained on one and its threshold is frozen on the other",
            table="splits",
            needs=("split", "domain"),
            values="images",
            expectation=BETWEEN,
            arguments={"min_value": 1},
            expected="train and dev, each with images",
            fault="{id} has {value} images",
        ),
        Rule(
            id="classes-populated",
            title="Every split holds every class that is trained on",
            why="error rates of an empty class say nothing",
            table="classes",
            needs=("split", "spoof_type", "domain"),
            values="images",
            expectation=BETWEEN,
            arguments={"min_value": config.min_per_class},
            expected=f"{config.min_per_class} images or more of each class of a split",
            fault=f"{{id}} has {{value}} of at least {config.min_per_class} images",
        ),
    )


def _captions() -> tuple[Rule, ...]:
    return (
        Rule(
            id="caption-present",
            title="Every image has a caption",
            why="the caption is what the model learns to write",
            table="images",
            needs=("caption",),
            values=derived.blank("caption"),
            expected="a caption",
        ),
        Rule(
            id="live-caption-clean",
            title="No caption of a bona fide image names an attack medium",
            why="the model would learn to explain a real face as an attack",
            table="images",
            needs=("label", "caption"),
            values=derived.live_caption,
            expected="no keyword of an attack",
        ),
    )


def _notes() -> tuple[Rule, ...]:
    return (
        Rule(
            id="attack-caption-medium",
            title="Captions of attacks name the attack's medium",
            why="explanations are learnt from these captions",
            table="attack images",
            needs=("label", "spoof_type", "caption"),
            values=derived.attack_caption,
            expectation=IN_SET,
            arguments={"value_set": [derived.NAMED], "mostly": LEAST_NAMED},
            expected=f"the right medium in {LEAST_NAMED:.0%} of the captions or more",
            severity="advisory",
        ),
        Rule(
            id="exposure",
            title="Training captions name every spoof type that is trained on",
            why="a medium that no caption names is never explained",
            table="spoof types",
            needs=("split", "domain", "label", "spoof_type", "caption"),
            values="captions",
            expectation=BETWEEN,
            arguments={"min_value": 1},
            expected="1 caption or more that names it",
            fault="{value} training captions name {id}",
            severity="advisory",
        ),
        Rule(
            id="domain-balance",
            title="Domains are of comparable size",
            why="the model would mostly learn the largest one, and a source domain without images adds nothing",
            table="domains",
            needs=("domain",),
            values=lambda domains: derived.balance(domains, LEAST_BALANCE),
            expected=f"{LEAST_BALANCE:.0%} of the largest domain's images or more",
            fault="domain {id} has {value}",
            severity="advisory",
        ),
        Rule(
            id="not-synthetic",
            title="Images are photographs",
            why="figures measured on rendered images say nothing about real attacks",
            table="images",
            needs=("synthetic",),
            values="synthetic",
            expectation=IN_SET,
            arguments={"value_set": [False]},
            expected="no rendered image",
            fault="rendered, not photographed",
            severity="advisory",
        ),
    )


def _one_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _one_row(rows: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({"id": ["manifest"], "images": [len(rows)]})


def _with_id(rows: pd.DataFrame) -> pd.DataFrame:
    """Images with a column `id`: the sample id, or the row's number where there is none."""
    import pandas as pd

    ids = rows["sample_id"].astype(object) if "sample_id" in rows else pd.Series(None, index=rows.index, dtype=object)
    unnamed = rows.index[ids.isna()]
    ids[unnamed] = [f"row {i}" for i in unnamed]
    return rows.assign(id=ids)
