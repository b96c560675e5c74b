"""What the pages say, gathered from the ledger, the files that were judged, and the comments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ifas.core.errors import GateError
from ifas.core.records import Lineage
from ifas.database.connection import Database
from ifas.evaluation.exposure import exposure_against_error
from ifas.evaluation.metrics import error_rates
from ifas.evaluation.plots import Series
from ifas.promotion.candidate import Candidate, Entry
from ifas.promotion.ledger import Ledger
from ifas.promotion.products import Product
from ifas.review import baselines, charts, comments, data_diff, figures, graph, pictures, shown, sweep
from ifas.review.accounts import Account
from ifas.review.deciding import ACTIONS, may
from ifas.review.judged import Files, Judged

if TYPE_CHECKING:
    import pandas as pd

#: Rows of the list; older ones are found by their id.
MOST_ROWS = 200
#: Lines of the label audit.
MOST_AUDITED = 40
#: Kinds of slices that are drawn; handlings have a chart of their own.
DRAWN = ("target", "source_test", "domain:", "spoof_type:", "device:", "illumination:", "batch:")


@dataclass(frozen=True)
class Line:
    """One candidate of the list."""

    candidate: Candidate
    changed: Sequence[str]
    passed: int
    rules: int
    narrowest: str
    figures: Sequence[figures.Figure]
    is_champion: bool


class Pages:
    """Reads everything anew for each page; the ledger is checked each time."""

    def __init__(self, ledger: Ledger, database: Database, files: Files, key: str) -> None:
        self._ledger = ledger
        self._database = database
        self._files = files
        self._key = key

    def overview(self, product: str, state: str) -> dict[str, Any]:
        """The list. Raises DataError where the ledger was altered, ConfigError for an unknown state."""
        self._ledger.verify()
        every = self._ledger.list()
        by_id = {one.id: one for one in every}
        chosen = [one for one in every if (not product or one.product == product) and (not state or one.state == state)]
        products = sorted({one.product for one in every})
        champions = {name: self._ledger.champion(name) for name in products}
        ids = {one.id for one in champions.values() if one}
        groups: dict[str, list[Line]] = {}
        for one in chosen[:MOST_ROWS]:
            groups.setdefault(one.product, []).append(_line(one, by_id.get(_rival(one)), one.id in ids))
        return {
            "groups": groups,
            "products": products,
            "states_there": [name for name in shown.STATES if any(one.state == name for one in every)],
            "waiting": sum(one.state == "pending" for one in every),
            "total": len(every),
            "left_out": max(len(chosen) - MOST_ROWS, 0),
            "product": product,
            "state": state,
        }

    def found(self, candidate: str) -> tuple[Candidate, Sequence[Entry]]:
        """A candidate and its history. Raises GateError, DataError as `Ledger.checked`."""
        return self._ledger.checked(candidate)

    def champion_of(self, candidate: Candidate) -> Candidate | None:
        """The champion that the gate compared a candidate with."""
        try:
            return self._ledger.checked(_rival(candidate))[0] if _rival(candidate) else None
        except GateError:
            return None

    def judged(self, candidate: Candidate) -> Judged:
        """The candidate's files."""
        return self._files.of(candidate)

    def candidate(self, account: Account, found: Candidate, history: Sequence[Entry]) -> dict[str, Any]:
        """Everything about one candidate."""
        champion, today = self.champion_of(found), self._ledger.champion(found.product)
        ours = self._files.of(found)
        theirs = self._files.of(champion) if champion else Judged()
        said = comments.of(self._database, found.id)
        registered = self._ledger.product(found.product)
        context: dict[str, Any] = {
            "c": found,
            "history": list(reversed(history)),
            "champion": champion,
            "today": today,
            "stale": _stale(found, today, registered),
            "registered": registered,
            "why_not": {action: may(account, found, action, registered, self._key) for action in ACTIONS},
            "changed": figures.changed(found, champion),
            "rules": figures.rules(found, champion),
            "headlines": {
                name: [figures.figure(found.metrics, theirs_of(champion), name, one) for one in figures.HEADLINES]
                for name in ("target", "source_test")
                if name in found.metrics.get("slices", {})
            },
            "every": _every(found, champion),
            "asked": _asked(found),
            "baselines": baselines.baselines(found.metrics),
            "baseline_figures": baselines.FIGURES,
            "notes": found.decision.get("notes", []),
            "synthetic": bool(found.metrics.get("data", {}).get("synthetic")),
            "judged": ours,
            "comments": said,
            "by_metric": _by_metric(said),
            "charts": self._charts(found, champion, ours, theirs),
            "lineage": graph.graph(ours.lineage) if ours.lineage else None,
            "champion_lineage": theirs.lineage,
            "cost": _cost(ours.lineage),
            "exposed": _exposed(found, ours.lineage),
            "audit": _audit(ours),
            "data": data_diff.counts(ours.lineage, theirs.lineage),
            "single": data_diff.single(ours, theirs) if champion else None,
        }
        return context | self._pictured(found, ours)

    def swept(self, found: Candidate, at: int | None) -> dict[str, Any]:
        """What moves where the threshold is another one: step `at` of the sweep; None: the frozen one."""
        ours = self._files.of(found)
        rows, frozen = self._target(found, ours), _threshold(found)
        if rows is None or frozen is None or rows.empty:
            return {"sweep": None}
        low, high = sweep.span(rows, frozen)
        last = sweep.POINTS - 1
        own = round((frozen - low) / (high - low) * last)
        step = own if at is None else min(max(at, 0), last)
        chosen = frozen if step == own else low + step / last * (high - low)
        drawing = charts.once(
            (found.evidence_sha256, "sweep", str(step)),
            f"APCER of the worst species and BPCER over the threshold; frozen at {frozen:.4f}, chosen {chosen:.4f}",
            lambda: charts.sweep(sweep.curve(rows, low, high), frozen, chosen),
        )
        return {
            "sweep": drawing,
            "at": step,
            "pictures_here": ours.dataset is not None,
            "last": last,
            "frozen": frozen,
            "chosen": chosen,
            "moves": sweep.moved(rows, frozen, chosen),
            "moved_cards": pictures.moved(rows, frozen, chosen) if chosen != frozen else [],
        }

    def _pictured(self, found: Candidate, ours: Judged) -> dict[str, Any]:
        frozen = _threshold(found)
        if ours.predictions is None or frozen is None:
            return {"mistakes": {}, "how_many": {}, "words": ([], 0), "sweep": None, "sides": []}
        rows = pictures.judged_rows(ours.predictions, found.metrics.get("protocol", {}))
        return {
            "mistakes": pictures.mistakes(rows, frozen),
            "how_many": pictures.how_many(rows, frozen),
            "words": pictures.wrong_words(rows, frozen),
            **self.swept(found, None),
        }

    def _target(self, found: Candidate, ours: Judged) -> pd.DataFrame | None:
        if ours.predictions is None:
            return None
        protocol = found.metrics.get("protocol", {})
        rows = pictures.judged_rows(ours.predictions, protocol)
        return rows[rows["domain"].isin(protocol.get("target_domains", []))]

    def _charts(self, found: Candidate, champion: Candidate | None, ours: Judged, theirs: Judged) -> dict[str, Markup]:
        made: dict[str, Markup] = {}
        before, drawn = theirs_of(champion), []
        names = [name for name in figures.slice_names(found) if name.startswith(DRAWN)]
        handled = [name for name in figures.slice_names(found) if name.startswith("handling:")]
        for metric in figures.HEADLINES:
            lines = [_row(found.metrics, before, shown.slice_name(name), name, metric) for name in names]
            drawn.append((metric, f"{shown.title(metric)} on every slice", lines))
        lines = [_row(found.metrics, before, name.partition(":")[2], name, "flips") for name in handled]
        drawn.append(("handled", "Share of verdicts that change after each handling", lines))
        for metric, title in (
            ("apcer", "APCER of each species, target domains"),
            ("explanation_medium_by_type", "Attacks whose medium is named rightly, by type, target domains"),
        ):
            ours_of, theirs_by = (shown.entry(one, "target", metric) for one in (found.metrics, before))
            drawn.append((metric, title, [(name, ours_of[name], theirs_by.get(name, {})) for name in ours_of]))
        for name, title, lines in drawn:
            if any(one.get("value") is not None for _, one, _ in lines):
                made[name] = charts.once(
                    (found.evidence_sha256, name),
                    f"{title}, candidate and champion, with 95 % intervals",
                    lambda lines=lines, name=name: charts.dots(lines, plain=name in shown.PLAIN),  # type: ignore[misc]
                )
        series, points = self._series(found, champion, ours, theirs)
        frozen = _threshold(found)
        if "candidate" in series and frozen is not None:
            far, frr = points["candidate"]
            told = (
                f"at the frozen threshold {100 * far:.1f} % of attacks are accepted, "
                f"{100 * frr:.1f} % of bona fide rejected"
            )
            for name, title, make in (
                ("roc", "ROC curve", lambda: charts.roc(series, points)),
                ("det", "DET curve", lambda: charts.det(series, points)),
                ("reliability", "Reliability diagram", lambda: charts.reliability(series)),
                ("scores", "Histogram of scores", lambda: charts.scores(series["candidate"], frozen)),
            ):
                made[name] = charts.once(
                    (found.evidence_sha256, name, ",".join(series)), f"{title}, target domains: {told}", make
                )
        return made

    def _series(
        self, found: Candidate, champion: Candidate | None, ours: Judged, theirs: Judged
    ) -> tuple[dict[str, Series], dict[str, tuple[float, float]]]:
        """Scores on the target domains, and the error rates at the frozen threshold, of candidate and champion."""
        series, points = {}, {}
        for who, one, judged in (("candidate", found, ours), ("champion", champion, theirs)):
            if one is None or (threshold := _threshold(one)) is None:
                continue
            rows = self._target(one, judged)
            if rows is None:
                continue
            live = (rows["label"] == "live").to_numpy(dtype=bool)
            if live.all() or not live.any():
                continue
            series[who] = Series(who, rows["score"].to_numpy(dtype="float64"), live)
            points[who] = error_rates(series[who].scores, live, threshold)
        return series, points


def theirs_of(champion: Candidate | None) -> Mapping[str, Any] | None:
    """The champion's figures, as the ledger has them."""
    return champion.metrics if champion else None


def _rival(candidate: Candidate) -> str:
    return str(candidate.facts.get("champion") or "")


def _line(one: Candidate, champion: Candidate | None, is_champion: bool) -> Line:
    judged = one.decision.get("rules", [])
    first = [rule for rule in figures.rules(one, champion) if rule.margin != shown.DASH][:1]
    return Line(
        candidate=one,
        changed=figures.changed(one, champion),
        passed=sum(rule["passed"] for rule in judged),
        rules=len(judged),
        narrowest=f"{shown.title(first[0].figure.metric)} {first[0].margin}" if first else "",
        figures=[figures.figure(one.metrics, theirs_of(champion), "target", name) for name in ("apcer_max", "bpcer")],
        is_champion=is_champion,
    )


def _stale(found: Candidate, today: Candidate | None, registered: Product | None) -> str:
    """Why an approval will first have it judged again; empty: it will not."""
    if found.state != "pending":
        return ""
    if (today.id if today else "") != found.evidence.get("champion", ""):
        return "another champion has been approved since its gate"
    if registered and registered.parsed_policy.sha256 != found.evidence.get("policy"):
        return "the product has another policy since its gate"
    return ""


def _threshold(found: Candidate) -> float | None:
    value = found.metrics.get("threshold", {}).get("value")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _row(ours: Mapping[str, Any], theirs: Mapping[str, Any] | None, label: str, name: str, metric: str) -> charts.Row:
    return label, shown.entry(ours, name, metric), shown.entry(theirs, name, metric)


def _every(found: Candidate, champion: Candidate | None) -> dict[str, list[figures.Figure]]:
    """The headline figures of every slice."""
    return {
        name: [figures.figure(found.metrics, theirs_of(champion), name, one) for one in figures.HEADLINES]
        for name in figures.slice_names(found)
    }


def _asked(found: Candidate) -> dict[str, dict[str, figures.Figure]]:
    """The figures of images asked in other ways, by side."""
    names = found.metrics.get("modes", {}).get("figures", [])
    return {
        side: {one: figures.figure(found.metrics, None, side, one) for one in names}
        for side in ("target", "source_test")
    }


def _by_metric(said: Sequence[comments.Comment]) -> dict[str, list[comments.Comment]]:
    found: dict[str, list[comments.Comment]] = {}
    for one in said:
        found.setdefault(one.metric, []).append(one)
    return found


def _cost(lineage: Lineage | None) -> dict[str, Any] | None:
    if lineage is None:
        return None
    used = [entry.usage for entry in lineage.entries if entry.usage]
    return {
        "entries": lineage.entries,
        "seconds": sum(entry.seconds for entry in lineage.entries),
        "cpu_hours": sum(one.cpu_hours for one in used),
        "gpu_hours": sum(one.gpu_hours for one in used),
        "price": sum(one.price for one in used),
        "currency": used[0].currency if used else "",
    }


def _exposed(found: Candidate, lineage: Lineage | None) -> dict[str, Any]:
    validation = lineage.of("validate") if lineage else None
    seen = validation.facts.get("exposure") if validation else None
    species = seen.get("species") if isinstance(seen, Mapping) else None
    apcer = shown.entry(found.metrics, "target", "apcer")
    if not species or not apcer:
        return {"rows": [], "spearman": None}
    return exposure_against_error(species, apcer)


def _audit(ours: Judged) -> dict[str, Any]:
    """What speaks against labels: images where the captions are at hand, else the counts of validation."""
    validation = ours.lineage.of("validate") if ours.lineage else None
    facts: Any = validation.facts.get("label_audit") if validation else None
    flags: Any = validation.facts.get("flags") if validation else None
    rows: list[dict[str, str]] = []
    if ours.captions is not None:
        listed = ours.captions[ours.captions["label_audit"].notna() & ~ours.captions["label_audit"].isin(["", "[]"])]
        rows = [
            {
                "id": str(one.sample_id),
                "species": str(one.pai_species),
                "split": str(one.split),
                "says": str(one.label_audit),
            }
            for one in listed.head(MOST_AUDITED).itertuples()
        ]
    return {
        "rows": rows,
        "contradicted": facts.get("contradicted") if isinstance(facts, Mapping) else None,
        "species": facts.get("species", {}) if isinstance(facts, Mapping) else {},
        "flags": flags if isinstance(flags, Mapping) else {},
    }
