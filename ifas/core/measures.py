"""Names of the figures in `metrics.json`: evaluation writes them, the gate limits them, the report explains them.

Definitions follow ISO/IEC 30107-3:2023 where it has one. Every figure lives in a slice, as
`{"value": …, "interval": [low, high] | null, "n": …}`, or as `{"value": null, "reason": …}` where it can't be measured.
A rate also has `errors` (or `hits`) and `n_subjects`, the people among whom it was counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ifas.core.errors import unknown_key


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure: its title, which direction is better, and what it says in plain words."""

    title: str
    better: Literal["lower", "higher"]
    about: str


#: Name in metrics.json -> what it is. To add a metric, add a line here and its value in `ifas.evaluation.slices`.
MEASURES: dict[str, Measure] = {
    "auc": Measure(
        title="AUC",
        better="higher",
        about="chance that a bona fide image scores above an attack; 0.5 is guessing, 1 is perfect",
    ),
    "eer": Measure(
        title="EER",
        better="lower",
        about="error rate at the threshold, chosen on the same data, where both kinds of error are equally frequent",
    ),
    "hter": Measure(
        title="HTER at the frozen threshold",
        better="lower",
        about="mean of the share of attacks accepted and the share of bona fide rejected, at the frozen threshold",
    ),
    "hter_oracle_eer": Measure(
        title="HTER at the slice's own EER threshold (oracle)",
        better="lower",
        about="the literature's HTER: its threshold is chosen on the tested data itself, so no deployment can reach it",
    ),
    "apcer_max": Measure(
        title="APCER, worst species",
        better="lower",
        about="share of attacks accepted as live, for the attack species that fools the model most often",
    ),
    "apcer_pooled": Measure(
        title="APCER, all attacks pooled",
        better="lower",
        about="share of all attacks accepted as live, whatever their species",
    ),
    "bpcer": Measure(
        title="BPCER",
        better="lower",
        about="share of real people in front of the camera who are turned away",
    ),
    "acer_not_iso": Measure(
        title="ACER (not ISO)",
        better="lower",
        about="mean of the worst species' APCER and BPCER; common in papers, not part of ISO/IEC 30107-3",
    ),
    "ece": Measure(
        title="ECE, expected calibration error",
        better="lower",
        about="how far scores are from being probabilities: of images with a score near 0.8, about 80 % should be bona "
        "fide (15 bins, bona fide and attacks weighing the same); some of it is chance where images are few",
    ),
    "tpr_at_fpr_1": Measure(
        title="TPR at FPR = 1 %",
        better="higher",
        about="share of bona fide accepted when at most 1 % of attacks are accepted (live is positive; oracle)",
    ),
    "bpcer_at_apcer_10": Measure(
        title="BPCER at APCER = 10 % (BPCER10)",
        better="lower",
        about="BPCER at the threshold where no species has an APCER above 10 % (oracle threshold)",
    ),
    "bpcer_at_apcer_5": Measure(
        title="BPCER at APCER = 5 % (BPCER20)",
        better="lower",
        about="BPCER at the threshold where no species has an APCER above 5 % (oracle threshold)",
    ),
    "bpcer_at_apcer_1": Measure(
        title="BPCER at APCER = 1 % (BPCER100)",
        better="lower",
        about="BPCER at the threshold where no species has an APCER above 1 % (oracle threshold)",
    ),
    "apnrr_max": Measure(
        title="APNRR, worst species",
        better="lower",
        about="share of attacks without an answer (no face that can be judged, or not readable), of the attack species "
        "that most often gets none",
    ),
    "bpnrr": Measure(
        title="BPNRR",
        better="lower",
        about="share of images of real people without an answer: no face that can be judged, or not readable",
    ),
    "explanation_agreement": Measure(
        title="Explanation agrees with the verdict",
        better="higher",
        about="share of explanations that name an attack medium exactly when the image was rejected",
    ),
    "explanation_medium": Measure(
        title="Explanation names the right medium",
        better="higher",
        about="among attacks that were rejected, share whose answer names the medium that was really used",
    ),
    "explanation_medium_least": Measure(
        title="Explanation names the right medium, worst spoof type",
        better="higher",
        about="the same share for the spoof type that is named rightly least often; one answer for all has 0",
    ),
    "explanation_contradictions": Measure(
        title="Explanation contradicts its answer",
        better="lower",
        about="share of explanations that name another medium than their answer, or any medium on an accepted image",
    ),
    "explanation_commonest": Measure(
        title="Commonest explanation",
        better="lower",
        about="share of explanations that are the commonest one, word by word; near 1, they tell nothing of the image",
    ),
    "explanation_cues_not_measured": Measure(
        title="Cues claimed but not measured",
        better="lower",
        about="of the cues that explanations claim, such as a dark frame, share that no visual specialist measured",
    ),
    "flips": Measure(
        title="Verdict flips when the image is handled",
        better="lower",
        about="share of images judged again after a handling (compressed, framed, ...) whose verdict changes; in "
        "other slices than those of a handling: changes after at least one of them",
    ),
    "flips_to_live": Measure(
        title="Verdict flips from attack to bona fide",
        better="lower",
        about="of images that were rejected, share that is accepted when handled",
    ),
    "flips_to_spoof": Measure(
        title="Verdict flips from bona fide to attack",
        better="lower",
        about="of images that were accepted, share that is rejected when handled",
    ),
    "handled_non_response": Measure(
        title="No answer when the image is handled",
        better="lower",
        about="share of images judged again after a handling that then give no score",
    ),
    "choice_position_bias": Measure(
        title="Multiple choice changes with the order of the options",
        better="lower",
        about="share of images whose chosen option is not the same in every order: the letter decides, not the image",
    ),
    "choice_disagreement": Measure(
        title="Multiple choice against the verdict",
        better="lower",
        about="share of images where the option of the mean likelihood over all orders contradicts the verdict",
    ),
    "open_disagreement": Measure(
        title="Open answer against the verdict",
        better="lower",
        about="share of images whose open answer does not say what the verdict says, those that say neither among them",
    ),
    "open_unparsed": Measure(
        title="Open answer says neither",
        better="lower",
        about="share of open answers that neither begin with Yes or No nor name an attack medium",
    ),
}

#: Slices that every evaluation has.
FIXED_SLICES: dict[str, str] = {
    "source_test": "test images of the domains the model was trained on",
    "target": "test images of domains the model never saw",
}

#: Slices by a column of the manifest are called `kind:value`.
SLICE_KINDS: dict[str, str] = {
    "domain": "one capture domain",
    "spoof_type": "one spoof type against all bona fide",
    "device": "one capture device",
    "illumination": "one kind of illumination",
    "batch": "one added batch: all of it while it is quarantined or a canary set, its test split once released",
    "handling": "some of them after one handling: the same images compressed, scaled, framed or in other light",
    "track": "`target` or `source_test` where images are frames: each face track once, by the mean score of its frames "
    "and a threshold of such scores",
}

#: Figures of a candidate that are compared with those of baselines, on the fixed slices and on each domain.
OF_BASELINES = ("auc", "hter", "apcer_max", "bpcer")


def measure(name: str) -> Measure:
    """The measure called `name`. Raises ConfigError that lists the known ones."""
    if name not in MEASURES:
        raise unknown_key("metric", name, MEASURES)
    return MEASURES[name]


def check_slice(name: str) -> None:
    """Raises ConfigError unless `name` is a fixed slice or `kind:value`; the value may be `*`."""
    kind, colon, value = name.partition(":")
    if name in FIXED_SLICES or (colon and value and kind in SLICE_KINDS):
        return
    raise unknown_key("slice", name, [*FIXED_SLICES, *(f"{kind}:<value or *>" for kind in SLICE_KINDS)])


#: Half of the 5 % that a 95 % interval may miss: so much below it, so much above.
TAIL = 0.025


def unseen(subjects: int) -> float:
    """The largest rate that no error among so many people leaves possible (Clopper-Pearson, each of them counted once).

    For 95 % on both sides about 3.7 / subjects; 1 of nobody.
    """
    return float(1 - TAIL ** (1 / subjects)) if subjects else 1.0
