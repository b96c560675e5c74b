"""Does a verdict stay when the same image arrives in another way: compressed, halved, between bars, in a border?

Some test images are judged as they are, then after each handling of `evaluate.robustness`. A verdict that changes is a
flip. An image that gives no score after a handling is no flip and no right answer: it is counted on its own.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from ifas.core.config import EvaluateConfig, ProtocolConfig
from ifas.core.release_status import released
from ifas.evaluation.rates import Rate, people

if TYPE_CHECKING:
    import pandas as pd

#: Columns of robustness.parquet, one row for each image and handling: `before` is the image's own score, `score` that
#: after the handling, null where it was refused for the reason `refused`; `refused_reason` is the name of its kind.
COLUMNS = ("sample_id", "handling", "before", "score", "refused", "refused_reason")
#: Columns that `tried` and `with_outcomes` add to predictions: the verdict as it was; whether it changed, null where
#: no handled image gave a score; whether a handled image gave none, null where the image was not tried.
OUTCOMES = ("verdict_before", "flipped", "unanswered")


def chosen(predictions: pd.DataFrame, protocol: ProtocolConfig, config: EvaluateConfig) -> list[int]:
    """Index labels of the images to try: released test images with a score, on each side of the protocol as many of
    every attack species, and as many bona fide as attacks. `evaluate.seed` and the ids decide which, nothing else."""
    most = config.robustness.images
    if not most or not config.robustness.handlings:
        return []
    rows = released(predictions)
    rows = rows[(rows["split"] == "test") & rows["score"].notna()].drop_duplicates("sample_id")
    order = [hashlib.sha256(f"{config.seed} {sample}".encode()).hexdigest() for sample in rows["sample_id"]]
    rows = rows.assign(_order=order).sort_values("_order")
    labels: set[int] = set()
    for domains in (protocol.source_domains, protocol.target_domains):
        side = rows[rows["domain"].isin(domains)]
        attacks = side[side["label"] == "spoof"].groupby("pai_species").head(most)
        labels.update(attacks.index, side[side["label"] == "live"].head(max(most, len(attacks))).index)
    return sorted(labels)


def tried(predictions: pd.DataFrame, handled: pd.DataFrame | None, threshold: float) -> pd.DataFrame:
    """The predictions of each handled image, one row for each handling, with the score and verdict after it.

    Args:
        predictions: rows with a score; one that is not in `handled` was not tried.
        handled: rows of `COLUMNS`; None: no image was tried.
    """
    import pandas as pd

    if handled is None or handled.empty:
        return pd.DataFrame(columns=list(dict.fromkeys((*predictions.columns, *COLUMNS, *OUTCOMES))))
    own = predictions.drop(columns=["score", "refused", "refused_reason", "verdict"]).drop_duplicates("sample_id")
    rows = own.merge(handled[list(COLUMNS)], on="sample_id", validate="one_to_many")
    answered = rows["score"].notna()
    before, after = rows["before"] >= threshold, rows["score"] >= threshold
    return rows.assign(
        verdict=after.astype("boolean").mask(~answered),
        verdict_before=before,
        flipped=(before != after).astype("boolean").mask(~answered),
        unanswered=(~answered).astype("boolean"),
        # Written for the image as it is.
        explanation=None,
        spoof_type_named=None,
    )


def with_outcomes(predictions: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Predictions with `OUTCOMES`: of an image, over all its handlings.

    Args:
        rows: of `tried`.
    """
    by_image = rows.groupby("sample_id")[["flipped", "unanswered"]]
    # "Some did" where any did; null where there is no answer at all.
    some = by_image.max().assign(verdict_before=rows.groupby("sample_id")["verdict_before"].first())
    return predictions.merge(some, how="left", left_on="sample_id", right_index=True)


def figures(rows: pd.DataFrame) -> dict[str, Any]:
    """The measures of a slice whose name begins with `flips` or `handled`: see `core.measures`.

    Args:
        rows: with `OUTCOMES`; one row an image.
    """
    judged, tried_rows = rows[rows["flipped"].notna()], rows[rows["unanswered"].notna()]
    flipped, before = judged["flipped"].astype(bool), judged["verdict_before"].astype(bool)
    counted = {
        "flips": Rate.of(flipped, people(judged)),
        "flips_to_live": Rate.of(flipped[~before], people(judged[~before])),
        "flips_to_spoof": Rate.of(flipped[before], people(judged[before])),
        "handled_non_response": Rate.of(tried_rows["unanswered"].astype(bool), people(tried_rows)),
    }
    none = {"reason": "no image of this slice was handled and judged again (evaluate.robustness)"}
    return {name: rate.entry() | ({} if rate.n else none) for name, rate in counted.items()}


def worst(slices: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Name of the handling after which most verdicts flip, and its figure; None where none was tried."""
    of = {name.partition(":")[2]: tree["flips"] for name, tree in slices.items() if name.startswith("handling:")}
    of = {name: entry for name, entry in of.items() if entry["value"] is not None}
    return max(of.items(), key=lambda item: item[1]["value"]) if of else None
