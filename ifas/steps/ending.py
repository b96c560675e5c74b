"""Tells how a pipeline run ended: which step failed, the last thing it said, and what to do next."""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
import urllib.request
from typing import Any

from ifas.core.config import RunConfig
from ifas.core.errors import ConfigError
from ifas.core.urls import check_http, clean
from ifas.steps.attempts import Failure, failures, usages
from ifas.steps.contract import STEPS
from ifas.steps.usage import KFP_RUN_ID

WEBHOOK_ENV = "IFAS_WEBHOOK"
#: Tries to reach the webhook, and seconds before each but the first.
PAUSES = (0, 2, 10)
#: What KFP calls success: the SDK's name, then those of the driver, which reads its metadata store.
SUCCESS = ("SUCCEEDED", "COMPLETE", "CACHED")


def tell(config: str, run_id: str, *, state: str, message: str = "") -> None:
    """Prints how the run ended and posts the same as JSON: run, state, step, what, fix, code, last, tries, costs.

    A webhook that can't be reached changes nothing: the run has ended as it has.

    Args:
        config: of the run, as JSON.
        run_id: empty: KFP's own.
        state: one of `SUCCESS`, each told as SUCCEEDED; FAILED or CANCELLED.
        message: what KFP says of the failure, used where no step has left a record.
    """
    settings = RunConfig.model_validate_json(config)
    run = run_id or os.environ.get(KFP_RUN_ID, "")
    said = ending(settings, run, state=state, message=message)
    print(_text(said), flush=True)
    url = settings.cluster.webhook or os.environ.get(WEBHOOK_ENV, "")
    if url:
        _post(url, said)


def ending(config: RunConfig, run: str, *, state: str, message: str) -> dict[str, Any]:
    """How the run ended, as the webhook gets it."""
    state = "SUCCEEDED" if state in SUCCESS else state
    said: dict[str, Any] = {"run": run, "state": state, "profile": config.profile, "dataset": config.ingest.dataset}
    used = usages(config.cluster, run)
    if used:
        said["costs"] = {step: one.model_dump() for step, one in used.items()}
    if state == "SUCCEEDED":
        return said
    # Steps run one after the other: the last that failed ended the run.
    tries: list[Failure] = next((f for name in reversed(STEPS) if (f := failures(config.cluster, run, name))), [])
    if tries:
        last = tries[-1]
        shown = last.model_dump(include={"step", "what", "fix", "code", "last"})
        return {**said, **shown, "tries": len(tries)}
    return {
        **said,
        "what": clean(message) or "a pod ended without telling why: it was killed, or never started",
        "fix": f"see its log: ifas logs {run}",
    }


def _text(said: dict[str, Any]) -> str:
    lines = [f"run {said['run']} {said['state'].lower()}" + (f" in step {said['step']}" if "step" in said else "")]
    lines += [f"  {name}: {said[name]}" for name in ("what", "last", "fix") if said.get(name)]
    costs = said.get("costs", {})
    for step, one in costs.items():
        lines.append(
            f"  {step:<9} {one['cpu_hours']:.3f} CPU-h  {one['gpu_hours']:.3f} GPU-h  "
            f"{one['peak_memory_gib']:.2f} GiB  {one['price']:.2f} {one['currency']}"
        )
    if costs:
        total = sum(one["price"] for one in costs.values())
        lines.append(f"  {'all':<9} {total:.2f} {next(iter(costs.values()))['currency']}")
    return "\n".join(lines)


def _post(url: str, said: dict[str, Any]) -> None:
    try:
        check_http(url, "cluster.webhook")
    except ConfigError as error:
        print(f"the webhook was not told: {error}", file=sys.stderr)
        return
    request = urllib.request.Request(  # noqa: S310 - checked above
        url, json.dumps(said).encode(), {"Content-Type": "application/json"}
    )
    why = ""
    for pause in PAUSES:
        time.sleep(pause)
        try:
            with urllib.request.urlopen(request, timeout=10):  # noqa: S310
                return
        # urllib's own errors are OSErrors; what the server answers may be no HTTP at all.
        except (OSError, http.client.HTTPException) as error:
            why = clean(str(error))
    print(f"the webhook was not told: {why}", file=sys.stderr)
