"""gate: evaluation + policy -> decision with every rule's margin, and a candidate in the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ifas.core.account import account
from ifas.core.config import RunConfig
from ifas.core.errors import ConfigError, DataError
from ifas.core.files import read_json, sha256_file, sha256_tree, write_json
from ifas.core.records import METRICS_FILE, PREDICTIONS_FILE, Lineage, StepResult
from ifas.steps.announce import announce, switch_on
from ifas.steps.contract import Context
from ifas.steps.ledger import open_ledger, open_products
from ifas.steps.rival import rival_of

if TYPE_CHECKING:
    from ifas.promotion.policy import Policy
    from ifas.promotion.products import Product


def run(config: RunConfig, inputs: Mapping[str, Path], outputs: Mapping[str, Path], context: Context) -> StepResult:
    """Decides and records. A refused candidate is recorded too; only a passed one can be approved."""
    from ifas.promotion.gate import decide

    metrics = read_json(inputs["evaluation"] / METRICS_FILE)
    product = open_products(config).get(config.gate.product)
    policy = policy_of(config, product)
    ledger = open_ledger(config)
    switch_on(config)
    evidence = {**evidence_of(inputs, context.lineage), "policy": policy.sha256}
    rival = rival_of(ledger, config.gate.product, evidence)
    decision = decide(metrics, rival.metrics if rival else None, policy, rival.id if rival else None)
    evidence["champion"] = rival.id if rival else ""
    model = evidence["model"]
    ingest = context.lineage.of("ingest")
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
            "submitter": config.gate.submitter or account(),
            "policy": policy.model_dump(mode="json"),
            # Of a pod, URIs: its disk is gone when somebody decides.
            "artifacts": {
                **{name: context.place(name, path) for name, path in inputs.items() if name != "lineage"},
                "lineage": context.uris.get("lineage") or str(context.lineage_out.absolute()),
                **({"record": context.uris["candidate"]} if "candidate" in context.uris else {}),
            },
        },
    )
    announce(config, ledger)
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


def policy_of(config: RunConfig, product: Product | None) -> Policy:
    """The policy that a run's candidate must pass.

    Args:
        product: as it is registered in the ledger; None if it is not.

    Raises:
        ConfigError: the run asks for another policy than the product has, for an approval by policy of a product that
            people approve, or for a policy that can't be read.
    """
    from ifas.promotion.policy import DEFAULT, load_policy

    if product is None:
        return load_policy(config.gate.policy or DEFAULT)
    policy = product.parsed_policy
    if config.gate.policy is not None and load_policy(config.gate.policy).sha256 != policy.sha256:
        raise ConfigError(
            f"product {product.name} has the policy {policy.name!r}, by {product.actor}; this run asks for "
            f"{config.gate.policy}",
            "leave gate.policy out (--set gate.policy=null), or have the product's changed: ifas product register",
        )
    if config.approve.by_policy and not product.by_policy:
        raise ConfigError(
            f"product {product.name} is approved by people; this run asks for approve.by_policy",
            "--set approve.by_policy=false, or have the product changed: ifas product register --by-policy",
        )
    return policy


def evidence_of(inputs: Mapping[str, Path], lineage: Lineage) -> dict[str, str]:
    """Name -> SHA-256 of what a decision about a run is made from: files, and how each step before the gate ran.

    Args:
        inputs: paths of model and evaluation, and where they are at hand of dataset and captions. Where not, their
            hashes are those of the evaluation's inputs.

    Raises:
        DataError: no evaluation is in the lineage, or something at hand is not what it judged or wrote.
    """
    evaluated = lineage.of("evaluate")
    if evaluated is None:
        raise DataError("no lineage that tells of the evaluation was given", "give the one that its step wrote")
    known = {**evaluated.inputs, **evaluated.outputs}
    for name, path in inputs.items():
        if name in known and sha256_tree(path) != known[name]:
            raise DataError(
                f"{path} is not the {name} of run {lineage.run_id}, as its lineage has it", "give the files of one run"
            )
    files = inputs["evaluation"]
    if evaluated.facts.get("metrics") != read_json(files / METRICS_FILE):
        raise DataError(f"{files / METRICS_FILE} is not what the run's evaluation found", "give the files of one run")
    return {
        **{name: known[name] for name in ("dataset", "captions", "model")},
        "metrics": sha256_file(files / METRICS_FILE),
        "predictions": sha256_file(files / PREDICTIONS_FILE),
        "steps": lineage.steps_sha256(),
    }
