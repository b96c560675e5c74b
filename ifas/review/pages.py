"""What the pages say, gathered from the ledger, the files that were judged, and the comments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ifas.core.errors import GateError
from ifas.core.records import Lineage
from ifas.database.connection import Database
from ifas.promotion.candidate import Candidate, Entry
from ifas.promotion.gates import unsigned
from ifas.promotion.ledger import Ledger
from ifas.promotion.products import Product
from ifas.review import charts, comments, cost, data_diff, figures, graph, measured, pictures, shown, sweep
from ifas.review.accounts import Account
from ifas.review.deciding import ACTIONS, may
from ifas.review.judged import Files, Judged

#: Rows of the list; older ones are found by their id.
MOST_ROWS = 200
#: Lines of the label audit.
MOST_AUDITED = 40


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
            "overridable": found.state == "refused"
            or (found.state == "pending" and bool(unsigned(registered, found, history))),
            "why_not": {action: may(account, found, history, action, registered, self._key) for action in ACTIONS},
            "changed": figures.changed(found, champion),
            "rules": figures.rules(found, champion),
            "notes": found.decision.get("notes", []),
            "synthetic": bool(found.metrics.get("data", {}).get("synthetic")),
            "judged": ours,
            "away": ours.trouble,
            "comments": said,
            "by_metric": _by_metric(said),
            "lineage": graph.graph(ours.lineage) if ours.lineage else None,
            "champion_lineage": theirs.lineage,
            "cost": cost.of(ours.lineage),
            "exposed": measured.exposed(found.metrics, _facts(ours.lineage, "validate")),
            "audit": _audit(ours),
            "data": data_diff.counts(ours.lineage, theirs.lineage),
            "single": data_diff.single(ours, theirs) if champion else None,
        }
        return context | self._measured(found, champion, ours, theirs) | self._pictured(found, ours)

    def swept(self, found: Candidate, at: int | None) -> dict[str, Any]:
        """What moves where the threshold is another one; see `measured.swept`."""
        ours = self._files.of(found)
        swept = measured.swept(charts.kept(found.evidence_sha256), _evaluated(found, ours), at)
        if swept is None:
            return {"swept": None}
        rows, frozen, chosen = (swept[name] for name in ("rows", "frozen", "chosen"))
        return {
            "swept": swept,
            "src_of": _src_of(found, ours),
            "moves": sweep.moved(rows, frozen, chosen),
            "moved_cards": pictures.moved(rows, frozen, chosen) if chosen != frozen else [],
        }

    def _pictured(self, found: Candidate, ours: Judged) -> dict[str, Any]:
        one = _evaluated(found, ours)
        if one.rows is None or one.threshold is None:
            return {"groups": {}, "how_many": {}, "words": ([], 0), "swept": None, "src_of": _src_of(found, ours)}
        groups = pictures.chosen(one.rows, one.threshold, 4 * pictures.SHOWN)
        return {
            "groups": {name: groups[name][: pictures.SHOWN] for name in ("false_accepts", "false_rejects")},
            "how_many": pictures.how_many(one.rows, one.threshold),
            "words": pictures.wrong_words(one.rows, one.threshold),
            **self.swept(found, None),
        }

    def _measured(self, found: Candidate, champion: Candidate | None, ours: Judged, theirs: Judged) -> dict[str, Any]:
        """Figures and charts, beside those of the champion as the ledger has them."""
        metrics, before, series = figures.compared(found, champion), theirs_of(champion), {}
        if (mine := _evaluated(found, ours).series("target")) is not None:
            series["candidate"] = mine
            if champion and (other := _evaluated(champion, theirs).series("target")) is not None:
                series["champion"] = other
        drawn = measured.drawings(charts.kept(found.evidence_sha256), metrics, figures.beside(metrics, before), series)
        return measured.of(metrics, before, drawn)


def _evaluated(found: Candidate, judged: Judged) -> measured.Evaluated:
    return measured.Evaluated(found.metrics, judged.predictions)


def _src_of(found: Candidate, judged: Judged) -> Callable[[str], str]:
    """Where a card's picture is had; empty where there are no pictures."""
    return lambda sample: f"/candidates/{found.id}/pictures/{sample}.jpg" if judged.dataset is not None else ""


def theirs_of(champion: Candidate | None) -> Mapping[str, Any] | None:
    """The champion's figures, as the ledger has them."""
    return champion.metrics if champion else None


def _rival(candidate: Candidate) -> str:
    return str(candidate.facts.get("champion") or "")


def _line(one: Candidate, champion: Candidate | None, is_champion: bool) -> Line:
    judged, metrics = one.decision.get("rules", []), figures.compared(one, champion)
    first = [rule for rule in figures.rules(one, champion) if rule.margin != shown.DASH][:1]
    return Line(
        candidate=one,
        changed=figures.changed(one, champion),
        passed=sum(rule["passed"] for rule in judged),
        rules=len(judged),
        narrowest=f"{shown.title(first[0].figure.metric)} {first[0].margin}" if first else "",
        figures=[figures.figure(metrics, theirs_of(champion), "target", name) for name in ("apcer_max", "bpcer")],
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


def _by_metric(said: Sequence[comments.Comment]) -> dict[str, list[comments.Comment]]:
    found: dict[str, list[comments.Comment]] = {}
    for one in said:
        found.setdefault(one.metric, []).append(one)
    return found


def _facts(lineage: Lineage | None, step: str) -> Mapping[str, Any]:
    entry = lineage.of(step) if lineage else None
    return entry.facts if entry else {}


def _audit(ours: Judged) -> dict[str, Any]:
    """What speaks against labels: images where the captions are at hand, else the counts of validation."""
    validation = _facts(ours.lineage, "validate")
    facts, flags = validation.get("label_audit"), validation.get("flags")
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
