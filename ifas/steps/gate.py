"""gate: evaluation + policy -> decision with every rule's margin, and a candidate in the ledger."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ifas.core.config import RunConfig
from ifas.core.files import read_json, sha256_file, sha256_tree, write_json
from ifas.core.records import METRICS_FILE, PREDICTIONS_FILE, StepResult
from ifas.steps.contract import Context


def ledger_url(config: RunConfig) -> str:
    """The ledger's URL. `IFAS_LEDGER` overrides the configuration, so that no password has to be written there."""
    return os.environ.get("IFAS_LEDGER") or config.gate.ledger


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Decides and records. A refused candidate is recorded too; only a passed one can be approved."""
    from ifas.promotion.gate import decide
    from ifas.promotion.ledger import Ledger
    from ifas.promotion.policy import load_policy

    metrics = read_json(inputs["evaluation"] / METRICS_FILE)
    policy = load_policy(config.gate.policy)
    ledger = Ledger(ledger_url(config))
    model = sha256_tree(inputs["model"])
    champion = ledger.champion(config.gate.product)
    rival = champion
    if champion is not None and champion.model_sha256 == model:
        # When the champion itself is judged again, it is compared with the model that it replaced.
        beaten = champion.facts.get("champion")
        rival = ledger.get(beaten) if beaten else None
    decision = decide(metrics, rival.metrics if rival else None, policy)
    ingest = context.lineage.of("ingest")
    evidence = {
        "dataset": sha256_tree(inputs["dataset"]),
        "captions": sha256_tree(inputs["captions"]),
        "model": model,
        "metrics": sha256_file(inputs["evaluation"] / METRICS_FILE),
        "predictions": sha256_file(inputs["evaluation"] / PREDICTIONS_FILE),
        "policy": policy.sha256,
        "champion": rival.id if rival else "",
    }
    candidate = ledger.submit(
        product=config.gate.product,
        run_id=context.run_id,
        evidence=evidence,
        model_sha256=model,
        dataset_revision=str(ingest.facts["revision"]) if ingest else "",
        metrics=metrics,
        decision=decision,
        facts={
            "champion": rival.id if rival else None,
            "artifacts": {
                "model": str(inputs["model"].absolute()),
                "evaluation": str(inputs["evaluation"].absolute()),
                "lineage": str(context.lineage_out.absolute()),
            },
        },
    )
    write_json(
        outputs["candidate"],
        {
            "candidate": candidate.id,
            "product": candidate.product,
            "state": candidate.state,
            "evidence": evidence,
            "evidence_sha256": candidate.evidence_sha256,
            "model_sha256": model,
            "champion": rival.id if rival else None,
            "decision": decision.as_dict(),
        },
    )
    passed = sum(rule.passed for rule in decision.rules)
    against = f", champion {rival.id}" if rival else ", no champion to beat"
    return StepResult(
        summary=f"candidate {candidate.id} {'passed' if decision.passed else 'REFUSED'}: "
        f"{passed}/{len(decision.rules)} rules of policy {policy.name}{against}",
        facts={
            "candidate": candidate.id,
            "state": candidate.state,
            "champion": rival.id if rival else None,
            "evidence_sha256": candidate.evidence_sha256,
            "decision": decision.as_dict(),
        },
    )
