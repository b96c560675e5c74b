"""Keyword precision and coverage of captions: what the filter kept, and what recaptioning gained."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ifas.core.taxonomy import ATTACKS, SPLITS, media_named

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from ifas.captioning.kept import Kept
    from ifas.captioning.protocol import Losses

#: Whose final texts may name a wrong medium.
_WHO = ("attack", "bona_fide")


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How some captions of attacks name media.

    Attributes:
        captions: captions looked at.
        naming: those that name any medium.
        right: those that name the medium of their own label.
        coverage: naming / captions; None without captions.
        precision: right / naming; None where none names a medium.
        right_share: right / captions = coverage * precision.
    """

    captions: int
    naming: int
    right: int
    coverage: float | None
    precision: float | None
    right_share: float | None


def naming(texts: pd.Series, spoof_types: pd.Series) -> Naming:
    """Counts over captions and the spoof types of their labels."""
    named = [media_named(text) for text in texts]
    any_medium = sum(1 for media in named if media)
    right = sum(1 for media, spoof_type in zip(named, spoof_types, strict=True) if spoof_type in media)
    return Naming(
        captions=len(named),
        naming=any_medium,
        right=right,
        coverage=_share(any_medium, len(named)),
        precision=_share(right, any_medium),
        right_share=_share(right, len(named)),
    )


def before_and_after(attacks: pd.DataFrame) -> dict[str, Any]:
    """Naming over all attacks, per spoof type and per split: of T_F (before), of T_S as C_S wrote it (tuned), and
    of the text that the model learns (after)."""
    groups: dict[str, pd.DataFrame] = {"all": attacks}
    groups |= {f"spoof_type={t}": attacks[attacks["spoof_type"] == t] for t in ATTACKS}
    groups |= {f"split={s}": attacks[attacks["split"] == s] for s in SPLITS}
    return {
        name: {
            "before": asdict(naming(group["caption_general"], group["spoof_type"])),
            "tuned": asdict(naming(group["caption_tuned"], group["spoof_type"])),
            "after": asdict(naming(group["caption"], group["spoof_type"])),
        }
        for name, group in groups.items()
        if len(group)
    }


def scf_facts(
    rows: pd.DataFrame,
    tuning: npt.NDArray[np.int64],
    *,
    kept: Kept,
    refused: list[dict[str, str]],
    cut: dict[str, int],
    losses: Losses,
) -> dict[str, Any]:
    """Every count of one captioning run as plain JSON.

    Args:
        rows: the captioned manifest.
        tuning: places of the rows that may tune C_S: the train split of the source domains.
        refused: pictures that could not be decoded, with the reason.
        kept: D_S.
        cut: how many final texts lost clauses, and how many clauses.
        losses: loss of every step of each phase of tuning.
    """
    attacks = rows[rows["label"] == "spoof"]
    chosen = rows.iloc[tuning]
    tuned_on = chosen[chosen["label"] == "spoof"]
    by_type = _by_type(tuned_on[tuned_on["caption_kept"]])
    present = _by_type(attacks)
    return {
        "images": len(rows),
        "attacks": len(attacks),
        "bona_fide": len(rows) - len(attacks),
        "unreadable": {"count": len(refused), "images": refused},
        "without_face": {str(k): int(n) for k, n in rows["face_refused"].value_counts().sort_index().items()},
        "tuning_images": len(tuning),
        "tuning_attacks": len(tuned_on),
        "kept": sum(by_type.values()),
        "dropped": len(tuned_on) - sum(by_type.values()),
        "kept_by_type": {t: by_type.get(t, 0) for t in present},
        "dropped_by_type": {t: n - by_type.get(t, 0) for t, n in _by_type(tuned_on).items()},
        # C_S never learned these media, so its captions of such attacks name another medium or none.
        "types_without_kept_captions": [t for t in present if not by_type.get(t)],
        "kept_pairs": len(kept),
        "kept_over_all_splits": int(attacks["caption_kept"].sum()),
        "recaptioned": len(attacks),
        "recaptioned_changed": int((attacks["caption"] != attacks["caption_general"]).sum()),
        **{f"{who}_{what}_cut": cut[f"{who}_{what}_cut"] for who in _WHO for what in ("captions", "clauses")},
        "unsupported_captions_cut": cut["unsupported_captions_cut"],
        "contradictions": sum(
            bool(set(media_named(text)) - {kind})
            for text, kind in zip(rows["caption"], rows["spoof_type"], strict=True)
        ),
        "distinct_texts_of_attacks": int(attacks["caption"].nunique()),
        "keywords": before_and_after(attacks),
        "keywords_unseen": before_and_after(attacks[~attacks["sample_id"].isin(tuned_on["sample_id"])]),
        "loss": {
            name: {"first": round(v[0], 4), "last": round(v[-1], 4), "lowest": round(min(v), 4), "steps": len(v)}
            for name, v in losses.items()
            if len(v)
        },
        "clauses": _clauses(rows["clauses"]),
        "labels_doubted": int(rows["label_audit"].notna().sum()),
    }


def scf_summary(facts: dict[str, Any]) -> str:
    """One line for a person."""
    every, unseen = (facts[name].get("all") for name in ("keywords", "keywords_unseen"))
    text = (
        f"{facts['images']} captions; of {facts['tuning_attacks']} tuning attacks {facts['kept']} kept, "
        f"{facts['dropped']} dropped; {facts['recaptioned']} attacks recaptioned: right medium named "
        f"{_percent(every['before']['right_share'])} -> {_percent(every['tuned']['right_share'])}"
    )
    if unseen:
        before, tuned = (_percent(unseen[when]["right_share"]) for when in ("before", "tuned"))
        text += f", of those not tuned on {before} -> {tuned}"
    if facts["attack_captions_cut"]:
        text += f"; {facts['attack_captions_cut']} wrong media taken out"
    if facts["unreadable"]["count"]:
        text += f"; {facts['unreadable']['count']} images unreadable, left out"
    if facts["without_face"]:
        reasons = ", ".join(f"{reason} {n}" for reason, n in facts["without_face"].items())
        text += f"; {sum(facts['without_face'].values())} images without a face that can be judged ({reasons})"
    if facts["types_without_kept_captions"]:
        text += f"; no kept caption of {', '.join(facts['types_without_kept_captions'])}"
    return text


def _clauses(column: pd.Series) -> dict[str, int]:
    """How many clauses each specialist gave to captions."""
    return dict(sorted(Counter(one["specialist"] for text in column for one in json.loads(text)).items()))


def _by_type(attacks: pd.DataFrame) -> dict[str, int]:
    counts = attacks["spoof_type"].value_counts()
    return {t: int(counts[t]) for t in ATTACKS if t in counts.index}


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.0%}"


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
