"""What a run used, step by step, in its report."""

from __future__ import annotations

import html
from pathlib import Path

from ifas.core.records import Lineage


def table(lineage: Lineage) -> str:
    """The run's costs per step, as a table for its report; empty where no step has told any."""
    told = [(entry.step, entry.usage, bool(entry.reused)) for entry in lineage.entries if entry.usage]
    if not told:
        return ""
    rows = "\n".join(
        f'<tr><th scope="row">{html.escape(step)}{" (reused)" * reused}</th><td>{one.cpu_hours:.3f}</td>'
        f"<td>{one.gpu_hours:.3f}</td><td>{one.peak_memory_gib:.2f}</td><td>{one.price:.2f}</td></tr>"
        for step, one, reused in told
    )
    total = [sum(getattr(one, name) for _, one, _ in told) for name in ("cpu_hours", "gpu_hours", "price")]
    peak = max(one.peak_memory_gib for _, one, _ in told)
    names = ("step", "CPU-hours", "GPU-hours", "peak memory in GiB", f"price in {html.escape(told[-1][1].currency)}")
    heads = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        '<section aria-labelledby="h-costs">\n<h2 id="h-costs">What the run used</h2>\n<div class="scroll"><table>\n'
        "<caption>By step, up to this report.</caption>\n"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n"
        f'<tr><th scope="row">all</th><td>{total[0]:.3f}</td><td>{total[1]:.3f}</td><td>{peak:.2f}</td>'
        f"<td>{total[2]:.2f}</td></tr>\n</tbody></table></div>\n</section>\n"
    )


def write_report(evaluation: Path, lineage: Lineage, out: Path) -> None:
    """Writes the evaluation's page with the costs of its run. The page itself may be an earlier run's."""
    before, end, after = evaluation.read_text(encoding="utf-8").rpartition("</main>")
    out.write_text(f"{before}{table(lineage)}{end}{after}", encoding="utf-8")
