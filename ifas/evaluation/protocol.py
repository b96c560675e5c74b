"""The cross-domain protocol: from predictions to the tree of figures in `metrics.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ifas.core.config import EvaluateConfig, ProtocolConfig
from ifas.core.errors import DataError
from ifas.core.files import sha256_json
from ifas.core.measures import FIXED_SLICES, MEASURES, SLICE_KINDS
from ifas.core.release_status import CANARY, QUARANTINED, RELEASED, released
from ifas.evaluation import modes, robustness
from ifas.evaluation.calibration import before_and_after, calibrated
from ifas.evaluation.rates import METHOD
from ifas.evaluation.slices import measure_slice, split_by
from ifas.evaluation.threshold import freeze
from ifas.evaluation.tracks import several, voting

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    predictions: pd.DataFrame,
    protocol: ProtocolConfig,
    config: EvaluateConfig,
    handled: pd.DataFrame | None = None,
    asked: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Every figure of the evaluation, as plain JSON values.

    Args:
        predictions: rows of the dev and test splits and of batches that are not released, as `predict` writes them
            (its `PREDICTION_COLUMNS`); `score` is made again from `raw_score`.
        handled: rows of images judged again after a handling, as `predict` writes them; None: none were.
        asked: rows of images asked in other ways, as `predict` writes them; None: none were.

    Raises:
        ConfigError: a side of the protocol is empty.
        DataError: a domain of the protocol or the development data is missing, or explanations were written for
            verdicts of another threshold.
    """
    predictions, calibration = calibrated(predictions, protocol, config)
    threshold = freeze(predictions, protocol, config)
    frames = predictions
    again = robustness.tried(predictions, handled, threshold.value)
    predictions = voting(predictions, config)
    released_rows = released(predictions)
    verdict = (predictions["score"] >= threshold.value).astype("boolean").mask(predictions["score"].isna())
    stale = (predictions["explanation"].notna() & (predictions["verdict"] != verdict)).fillna(False)
    if stale.any():
        raise DataError(
            f"{int(stale.sum())} explanations were written for verdicts of another threshold than {threshold.value}",
            "run `ifas step evaluate` again, so that explanations and threshold belong together",
        )
    seen = modes.with_modes(robustness.with_outcomes(predictions.assign(verdict=verdict), again), asked)
    again = modes.with_modes(again, None)
    unseen = seen[(seen["split"] == "test") | (seen["status"] != RELEASED)]
    # Data that nobody released yet has slices of its own, and is in no other figure.
    test = released(unseen)
    judged = test[test["domain"].isin(protocol.source_domains + protocol.target_domains)]
    overlap = sorted(set(protocol.source_domains) & set(protocol.target_domains))
    slices: dict[str, Any] = {}
    for name, domains in (("source_test", protocol.source_domains), ("target", protocol.target_domains)):
        about = f"{FIXED_SLICES[name]}: {', '.join(domains)}"
        slices[name] = measure_slice(test[test["domain"].isin(domains)], threshold.value, config, about)
    if config.unit == "image":
        slices |= _tracks(frames, protocol, config)
    for kind, meaning in SLICE_KINDS.items():
        if kind == "track":
            continue
        # A domain outside the protocol has a slice of its own, and is in no other figure.
        among = {"domain": test, "batch": unseen, "handling": again}.get(kind, judged)
        for name, rows in split_by(among, kind).items():
            slices[name] = measure_slice(rows, threshold.value, config, f"test images: {meaning}")
    return {
        "schema": 1,
        "summary": _summary(judged, threshold.value, slices),
        "unit": config.unit,
        "calibration": calibration and calibration.entry() | _calibrated(released(frames), protocol, config),
        "threshold": threshold.entry(),
        "protocol": {
            "source_domains": list(protocol.source_domains),
            "target_domains": list(protocol.target_domains),
            "cross_domain": not overlap,
            "overlap": overlap,
        },
        "config": config.model_dump(mode="json"),
        "data": _data(released_rows) | _unreleased(predictions),
        "intervals": {
            "level": 0.95,
            "rates": METHOD,
            "others": "Student's t on the logit scale, standard error of a bootstrap over subjects, "
            f"{config.bootstrap} resamples, seed {config.seed}",
        },
        **({} if asked is None or asked.empty else {"modes": _modes(asked)}),
        "slices": slices,
    }


def _modes(asked: pd.DataFrame) -> dict[str, Any]:
    """How images were asked in other ways; the figures are in the slices, where policies limit them."""
    said = asked["open_says"].fillna("neither").value_counts().sort_index()
    return {
        "n": len(asked),
        "questions": [modes.question(order) for order in modes.orders()],
        "chosen": {str(kind): int(n) for kind, n in asked["chosen"].value_counts().sort_index().items()},
        "open": {str(kind): int(n) for kind, n in said.items()},
        "figures": [name for name in MEASURES if name.startswith(("choice_", "open_"))],
    }


def _tracks(frames: pd.DataFrame, protocol: ProtocolConfig, config: EvaluateConfig) -> dict[str, Any]:
    """The slices of kind `track`, with the figures that `evaluate.unit=track` would give the fixed slices; none of a
    side without a track of several images."""
    config = config.model_copy(update={"unit": "track"})
    test = released(frames[frames["split"] == "test"])
    sides = {"source_test": protocol.source_domains, "target": protocol.target_domains}
    sides = {name: domains for name, domains in sides.items() if several(test[test["domain"].isin(domains)])}
    if not sides:
        return {}
    rows, _ = calibrated(frames, protocol, config)
    threshold = freeze(rows, protocol, config).value
    rows = voting(rows, config)
    verdict = (rows["score"] >= threshold).astype("boolean").mask(rows["score"].isna())
    # Explanations and handled images are of single frames, and of another threshold.
    rows = rows.assign(verdict=verdict, explanation=None, spoof_type_named=None)
    rows = modes.with_modes(robustness.with_outcomes(rows, robustness.tried(rows, None, threshold)), None)
    rows = released(rows[rows["split"] == "test"])
    about = f"test tracks, at their own threshold {threshold:.3f}"
    return {
        f"track:{name}": measure_slice(
            rows[rows["domain"].isin(domains)], threshold, config, f"{about}: {FIXED_SLICES[name]}"
        )
        for name, domains in sides.items()
    }


def _calibrated(frames: pd.DataFrame, protocol: ProtocolConfig, config: EvaluateConfig) -> dict[str, Any]:
    """What calibration did to the test images of either side."""
    test = frames[frames["split"] == "test"]
    return {
        "source_test": before_and_after(test[test["domain"].isin(protocol.source_domains)], config),
        "target": before_and_after(test[test["domain"].isin(protocol.target_domains)], config),
    }


def _summary(judged: pd.DataFrame, threshold: float, slices: dict[str, Any]) -> str:
    target, source, flips = slices["target"], slices["source_test"], robustness.worst(slices)

    def shown(entry: dict[str, Any], percent: bool = True) -> str:
        if entry["value"] is None:
            return "not measured"
        return f"{100 * entry['value']:.1f}%" if percent else f"{entry['value']:.3f}"

    silent = int(judged["score"].isna().sum())
    unanswered = f", {silent} more without an answer" if silent else ""
    return (
        f"{len(judged) - silent} test images at threshold {threshold:.3f}{unanswered}; "
        f"target: HTER {shown(target['hter'])}, "
        f"APCER {shown(target['apcer_max'])}, BPCER {shown(target['bpcer'])}, AUC {shown(target['auc'], False)}; "
        f"source: HTER {shown(source['hter'])}, AUC {shown(source['auc'], False)}; "
        f"flips when handled: {f'at most {shown(flips[1])} ({flips[0]})' if flips else 'not measured'}"
    )


def _data(predictions: pd.DataFrame) -> dict[str, Any]:
    test = predictions[predictions["split"] == "test"]
    refused = predictions[predictions["score"].isna()]
    return {
        "n_dev": int((predictions["split"] == "dev").sum()),
        "n_test": len(test),
        "synthetic": bool(predictions["synthetic"].any()),
        # Two evaluations with the same hash judged the same images, so their figures can be compared.
        "test_samples_sha256": sha256_json(sorted(test["sample_id"])),
        "explained": int(predictions["explanation"].notna().sum()),
        "non_response": {
            "n": len(refused),
            "reasons": {str(r): int(n) for r, n in refused["refused_reason"].value_counts().sort_index().items()},
            "apnrr": _share(test[test["label"] == "spoof"]),
            "bpnrr": _share(test[test["label"] == "live"]),
            "samples": [
                {"sample_id": s, "domain": d, "reason": reason, "why": why}
                for s, d, reason, why in zip(
                    *(refused[name] for name in ("sample_id", "domain", "refused_reason", "refused")), strict=True
                )
            ],
        },
    }


def _unreleased(predictions: pd.DataFrame) -> dict[str, Any]:
    """Images in quarantine and canaries."""
    return {f"n_{status}": int((predictions["status"] == status).sum()) for status in (QUARANTINED, CANARY)}


def _share(rows: pd.DataFrame) -> dict[str, Any]:
    """Non-response rate (ISO/IEC 30107-3): images that gave no score."""
    n = len(rows)
    return {"value": float(rows["score"].isna().mean()) if n else None, "n": n}
