"""Runs the rules on a captioned manifest with Great Expectations, on columns only, and writes the results."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.core.config import ValidateConfig
from ifas.validation.derived import MEDIA, column_table, with_media
from ifas.validation.findings import Example, Finding, ValidationReport
from ifas.validation.report import write_report
from ifas.validation.rules import TABLES, Rule, rules
from ifas.validation.section import Section

if TYPE_CHECKING:
    import pandas as pd

    from ifas.core.manifest import ImageSource

#: Cases that a failed rule shows.
EXAMPLES = 10
LONGEST_VALUE = 300
#: Column of a derived table: the row of the manifest that a case comes from, if the case is an image.
ROW = "row of the manifest"
#: Number of values that Great Expectations gets at once.
CELLS = 1_000_000


def validate(
    manifest: pd.DataFrame,
    config: ValidateConfig,
    *,
    out: Path,
    source_domains: Sequence[str] = (),
    sections: Sequence[Section] = (),
    images: ImageSource | None = None,
) -> ValidationReport:
    """Checks every rule and writes `out`/report.html and `out`/results.json, whatever the outcome.

    Args:
        manifest: a captioned manifest; a column that is missing is a finding.
        source_domains: domains that are trained on; empty: all.
        sections: results of the audits.
        images: where the report's images are read from; None: it has none.

    Raises:
        ConfigError: `config.advisory` names a rule that does not exist.
    """
    findings = check(manifest, rules(config), source_domains)
    report = conclude(findings, manifest, sections)
    write_report(findings, report, manifest, config, source_domains, out, sections=sections, images=images)
    return report


def check(manifest: pd.DataFrame, rules: Sequence[Rule], source_domains: Sequence[str] = ()) -> tuple[Finding, ...]:
    """One finding per rule, in the order of the rules."""
    rows = with_media(manifest.reset_index(drop=True))
    columns = column_table(rows)
    by_id = columns.set_index("id")
    found: dict[str, Finding] = {
        rule.id: Finding(rule, "not checked", f"not checked: {reason}")
        for rule in rules
        if (reason := _obstacle(rule, by_id, rows.empty))
    }
    drawn: dict[str, pd.DataFrame] = {}
    draws = {"columns": lambda *_: columns, **TABLES}
    for name, draw in draws.items():
        ready = [rule for rule in rules if rule.table == name and rule.id not in found]
        if ready:
            # A table is a copy of the rows it takes, so it is given no more columns than its rules ask for.
            asked = {"sample_id", MEDIA}.union(*(rule.needs for rule in ready))
            few = rows[[name for name in rows.columns if name in asked]]
            drawn[name] = _draw(draw, few, source_domains, ready, found)
    ready = [rule for rule in rules if rule.id not in found]
    for rule, result in zip(ready, _expect(drawn, ready), strict=True):
        found[rule.id] = _finding(rule, result, drawn, rows)
    return tuple(found[rule.id] for rule in rules)


def conclude(findings: Sequence[Finding], manifest: pd.DataFrame, sections: Sequence[Section] = ()) -> ValidationReport:
    """The report of these findings and sections."""
    stopping = [one for one in findings if one.blocks]
    failures = [f"{one.rule.title}: {one.said}" for one in stopping if one.status != "not checked"]
    unchecked = [one.rule.id for one in stopping if one.status == "not checked"]
    if unchecked:
        failures.append(f"not checked because of missing or unusable columns: {', '.join(unchecked)}")
    failures += [text for section in sections for text in section.blocking]
    flags = {section.id: list(section.flags) for section in sections if section.flags}
    count = {
        "passed": sum(one.status == "passed" for one in findings),
        "blocking failed": sum(one.blocks and one.status == "failed" for one in findings),
        "broken": sum(one.status == "broken" for one in findings),
        "not checked": sum(one.status == "not checked" for one in findings),
        "advisory note": sum(one.rule.severity == "advisory" and one.status == "failed" for one in findings),
    }
    shown = [f"{n} {name}{'s' if name.endswith('note') and n != 1 else ''}" for name, n in count.items() if n]
    summary = f"{len(findings)} rules: {', '.join(shown)} on {len(manifest)} images"
    if flags:
        noted = sum(map(len, flags.values()))
        summary += f", {noted} thing{'s' if noted != 1 else ''} to look into"
    facts = {
        "images": len(manifest),
        "rules": len(findings),
        **{name.replace(" ", "_"): n for name, n in count.items()},
        "status": {one.rule.id: one.status for one in findings},
        "notes": {
            one.rule.id: one.said for one in findings if one.rule.severity == "advisory" and one.status != "passed"
        },
        **({"flags": flags} if flags else {}),
        **{section.id.replace("-", "_"): section.facts for section in sections},
    }
    return ValidationReport(not failures, tuple(failures), summary, facts)


def _obstacle(rule: Rule, columns: pd.DataFrame, empty: bool) -> str:
    """Why the rule can't be checked, given the table of columns by id; the empty text where it can."""
    missing = [name for name in rule.needs if columns.at[name, "missing"]]
    wrong = [f"{name} holds {columns.at[name, 'type']}" for name in rule.needs if columns.at[name, "type"]]
    if missing:
        return f"no column {', '.join(missing)}"
    if wrong:
        return ", ".join(wrong)
    return "the manifest is empty" if rule.needs and empty else ""


def _column(rule: Rule) -> str:
    """Name of the column that the rule judges, in the concatenated tables: rules about the same column share it."""
    return f"{rule.table}: {rule.values if isinstance(rule.values, str) else rule.id}"


def _draw(
    draw: Callable[[pd.DataFrame, Sequence[str]], pd.DataFrame],
    rows: pd.DataFrame,
    source_domains: Sequence[str],
    rules: Sequence[Rule],
    found: dict[str, Finding],
) -> pd.DataFrame:
    """The table's `id`, the rows of the manifest, and the columns that the rules judge. A failing column goes to
    `found`, broken.
    """
    import pandas as pd

    try:
        table = draw(rows, source_domains)
    except Exception as error:  # noqa: BLE001 - a check that can't run is a finding of its own
        found.update({rule.id: Finding(rule, "broken", f"{type(error).__name__}: {error}") for rule in rules})
        return pd.DataFrame({"id": [], ROW: []})
    columns = {"id": table["id"], ROW: table.index}
    for rule in rules:
        try:
            columns[_column(rule)] = table[rule.values] if isinstance(rule.values, str) else rule.values(table)
        except Exception as error:  # noqa: BLE001
            found[rule.id] = Finding(rule, "broken", f"{type(error).__name__}: {error}")
        else:
            if table.empty:
                found[rule.id] = Finding(rule, "passed", f"no {rule.table}")
    return pd.DataFrame(columns).reset_index(drop=True)


def _expect(drawn: dict[str, pd.DataFrame], rules: Sequence[Rule]) -> list[Any]:
    """Result of Great Expectations for each rule.

    Great Expectations filters the whole table for every expectation, so with many rows few columns go at a time.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    asset = context.data_sources.add_pandas("manifest").add_dataframe_asset("tables")
    batch = asset.add_batch_definition_whole_dataframe("all")
    largest = max((len(table) for table in drawn.values()), default=0)
    at_once = max(1, CELLS // max(1, largest))
    columns = list(dict.fromkeys(map(_column, rules)))
    results = {}
    for start in range(0, len(columns), at_once):
        few = [rule for rule in rules if _column(rule) in columns[start : start + at_once]]
        results.update(_pass(context, batch, drawn, few))
    return [results[rule.id] for rule in rules]


def _pass(context: Any, batch: Any, drawn: dict[str, pd.DataFrame], rules: Sequence[Rule]) -> dict[str, Any]:
    """Results of some rules by id, judged at once.

    The tables are concatenated. Every expectation used here skips nulls, or expects them, so the rows of other tables
    have no effect. Row numbers of a result are those of the rule's own table.
    """
    import great_expectations as gx
    import great_expectations.expectations as gxe
    import pandas as pd

    offsets, below, tables = {}, 0, []
    for name, table in drawn.items():
        mine = list(dict.fromkeys(_column(rule) for rule in rules if rule.table == name))
        if mine:
            offsets[name], below = below, below + len(table)
            tables.append(table[mine])
    frame = pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    name = rules[0].id
    expectations = [
        getattr(gxe, rule.expectation)(column=_column(rule), meta={"rule": rule.id}, **rule.arguments) for rule in rules
    ]
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    # A definition's run takes the fingerprint of the table once; a batch that is fetched and then validated, twice.
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    # No unexpected_index_column_names: GX would look each row up on its own, seconds for 100,000 failing rows.
    wanted = {"result_format": "SUMMARY", "partial_unexpected_count": EXAMPLES}
    outcome = definition.run(batch_parameters={"dataframe": frame}, result_format=wanted)
    # Those that raised come first, so the order is not that of the rules.
    results = {result.expectation_config.meta["rule"]: result for result in outcome.results}
    for rule in rules:
        found = results[rule.id].result
        found["rows"] = [i - offsets[rule.table] for i in found.get("partial_unexpected_index_list") or []]
    return results


def _finding(rule: Rule, result: Any, drawn: dict[str, pd.DataFrame], rows: pd.DataFrame) -> Finding:
    if error := _raised(result.exception_info):
        # An expectation that raises counts as failed in Great Expectations; that says nothing about the data.
        return Finding(rule, "broken", error)
    table = drawn[rule.table]
    bad, cases = int(result.result["unexpected_count"]), len(table)
    if rule.table == "manifest":
        observed = "the manifest" if bad else "images"
    elif bad:
        observed = f"{bad} of {cases} {rule.table} ({bad / cases:.1%})"
    else:
        observed = f"all {cases} {rule.table} as expected"
    shown = result.result["rows"][:EXAMPLES]
    examples = tuple(_example(rule, table.loc[i], rows) for i in shown)
    return Finding(rule, "passed" if result.success else "failed", observed, examples, bad)


def _example(rule: Rule, case: pd.Series, rows: pd.DataFrame) -> Example:
    """A case in words."""
    name = str(case["id"])
    value = rule.fault.format(id=name, value=_text(case[_column(rule)]))
    if "images" not in rule.table:
        return Example(name, value)
    return Example(name, value, _where(rows.loc[case[ROW]]))


def _where(image: pd.Series) -> str:
    """Domain, split and class of an image, as far as the manifest says them."""
    names = {"domain": "domain", "split": "split", "spoof_type": "class"}
    return ", ".join(f"{word} {image[column]}" for column, word in names.items() if column in image)


def _raised(info: dict[str, Any]) -> str:
    """Message of what an expectation raised, which is nested one level deeper when a metric raised it; else empty."""
    for one in (info, *info.values()):
        if isinstance(one, dict) and one.get("raised_exception"):
            return str(one.get("exception_message") or "an exception without a message")
    return ""


def _text(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} …"
