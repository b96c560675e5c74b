"""The operating point: chosen once on development data of the source domains, then frozen.

Nothing of a target domain and nothing of a test split can move it, so the figures at this threshold are what a
deployment would have seen. (The literature's HTER chooses its threshold on the tested data; it is reported beside.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ifas.core.config import EvaluateConfig, ProtocolConfig
from ifas.core.errors import ConfigError, DataError, unknown_key
from ifas.core.release_status import released
from ifas.evaluation import metrics
from ifas.evaluation.metrics import Bools, Floats, OperatingPoint
from ifas.evaluation.tracks import voting

if TYPE_CHECKING:
    import pandas as pd

Rule = Callable[[Floats, Bools, list[str], EvaluateConfig], OperatingPoint]

#: Rule name -> how it picks the operating point on development data.
THRESHOLD_RULES: dict[str, Rule] = {
    "eer": lambda scores, live, _species, _config: metrics.eer(scores, live),
    "apcer": lambda scores, live, species, config: metrics.apcer_point(scores, live, species, config.max_apcer),
}

RULE_TEXTS: dict[str, str] = {
    "eer": "attacks accepted and bona fide rejected are equally frequent on the development data (EER)",
    "apcer": "the most lenient threshold at which no attack species is accepted more often than allowed",
}


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A frozen threshold and where it comes from. An image is accepted when `score >= value`."""

    value: float
    rule: str
    domains: tuple[str, ...]
    n_live: int
    n_spoof: int
    n_subjects: int
    far: float
    frr: float

    def entry(self) -> dict[str, Any]:
        """As it stands in metrics.json."""
        return {
            "value": self.value,
            "rule": self.rule,
            "rule_text": RULE_TEXTS[self.rule],
            "accept": "score >= value",
            "from": {"split": "dev", "domains": list(self.domains)},
            "n_live": self.n_live,
            "n_spoof": self.n_spoof,
            "n_subjects": self.n_subjects,
            "dev_far": self.far,
            "dev_frr": self.frr,
        }


def check_protocol(predictions: pd.DataFrame, protocol: ProtocolConfig) -> None:
    """Raises ConfigError when a side of the protocol is empty, DataError when it names a domain that is not there."""
    for side in ("source_domains", "target_domains"):
        wanted: tuple[str, ...] = getattr(protocol, side)
        if not wanted:
            raise ConfigError(
                f"protocol.{side} is empty",
                f"set it, e.g. --set protocol.{side}=[NAME]; an intra-domain run names the same domain on both sides",
            )
        present = sorted(set(predictions["domain"]))
        missing = [d for d in wanted if d not in present]
        if missing:
            raise DataError(
                f"protocol.{side} names {', '.join(missing)}, which has no dev or test image in the dataset",
                f"domains with such images: {', '.join(present) or 'none'}",
            )


def development(predictions: pd.DataFrame, protocol: ProtocolConfig, column: str) -> pd.DataFrame:
    """The released dev rows of the source domains that have a value in `column`.

    Raises:
        ConfigError: an empty protocol.
        DataError: no bona fide or no attack among those rows.
    """
    rows = released(predictions)
    check_protocol(rows, protocol)
    rows = rows[(rows["split"] == "dev") & rows["domain"].isin(protocol.source_domains) & rows[column].notna()]
    lacking = [name for name, kind in (("bona fide", "live"), ("attack", "spoof")) if not (rows["label"] == kind).any()]
    if lacking:
        raise DataError(
            f"no {' and no '.join(lacking)} image in the dev split of the source domains "
            f"({', '.join(protocol.source_domains)}): the threshold can't be chosen",
            "give those domains dev subjects with bona fide and attack images",
        )
    return rows


def freeze(predictions: pd.DataFrame, protocol: ProtocolConfig, config: EvaluateConfig) -> Threshold:
    """The threshold on the released dev rows of the source domains, each image or track with one vote.

    `predict` needs it for the verdicts and `evaluate` for the figures. Both hand the whole table to this function, so
    the same table always has the same threshold.

    Args:
        predictions: the whole table, with the columns `predict` writes (`score` is null where an image was refused).

    Raises:
        ConfigError: an empty protocol, or an unknown rule.
        DataError: no bona fide or no attack among those rows.
    """
    if config.threshold not in THRESHOLD_RULES:
        raise unknown_key("threshold rule", config.threshold, THRESHOLD_RULES)
    rows = voting(development(predictions, protocol, "score"), config)
    live = (rows["label"] == "live").to_numpy(dtype=bool)
    point = THRESHOLD_RULES[config.threshold](
        rows["score"].to_numpy(dtype="float64"), live, rows["pai_species"].tolist(), config
    )
    return Threshold(
        value=point.threshold,
        rule=config.threshold,
        domains=protocol.source_domains,
        n_live=int(live.sum()),
        n_spoof=int((~live).sum()),
        n_subjects=int(rows["subject_id"].nunique()),
        far=point.far,
        frr=point.frr,
    )
