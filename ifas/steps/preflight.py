"""Checks before training: a run that can't succeed is refused in seconds, not after hours.

Reads the policy, the registry's manifest of the revision (no images) and the ledger; makes nothing, uses no GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ifas.core.config import LINEAR_PROBE, ClusterConfig, RunConfig
from ifas.core.errors import ConfigError, DataError, IfasError, MachineError, unknown_key
from ifas.core.files import check_writable
from ifas.core.home import home
from ifas.core.release_status import released
from ifas.core.taxonomy import SPOOF_TYPES
from ifas.steps import baselines

if TYPE_CHECKING:
    import pandas as pd

    from ifas.promotion.policy import Rule

SIDES = ("source_domains", "target_domains")
#: How the metrics begin that need handled images.
OF_HANDLED = ("flips", "handled_")
#: How the metrics begin that need images asked in other ways.
OF_MODES = ("choice_", "open_")


def check(config: RunConfig, *, here: bool = True, data: bool = True) -> None:
    """Everything that can be checked before training.

    Args:
        here: whether the run will take place on this machine. If not, ledger, weights and a policy file in the
            container image can't be checked from here, and of the registry only whether pods can read its place.
        data: whether the dataset exists already.

    Raises:
        IfasError: what is wrong, and what is available instead. Several faults are reported together, with the exit
            code of the first.
    """
    found = list(_faults(config, here, here and data))
    if not found:
        return
    if len(found) == 1:
        raise found[0]
    lines = [f"\n  {number}. {error.what} ({error.fix})" for number, error in enumerate(found, 1)]
    raise type(found[0])(f"this run can't succeed, for {len(found)} reasons:{''.join(lines)}", "fix each of them")


def check_to_send(config: RunConfig) -> None:
    """What can be checked before a run is sent to a cluster; also, whether each RayJob is large enough for its step.

    Raises:
        IfasError: as `check`; or a pod would have no image, no registry, or nowhere to keep what later ones need.
    """
    from ifas.launch.capacity import check_fits

    check(config, here=False)
    for step, job in (("caption", config.cluster.caption), ("train", config.cluster.train)):
        if job.ray == "job":
            check_fits(config, step)


def _faults(config: RunConfig, here: bool, data: bool) -> Iterable[IfasError]:
    from ifas.validation.rules import rules

    checks: list[Callable[[], object]] = [
        lambda: _sides(config),
        lambda: _policy(config, here),
        lambda: rules(config.validation),
        lambda: _captioner(config),
        lambda: _weights_of_species(config),
        lambda: _storage(config),
        lambda: _events(config, here),
        lambda: _signing_keys(config, here),
    ]
    if here:
        checks += [_home, lambda: _ledger(config), lambda: _sources(config), lambda: _tracking(config)]
    else:
        checks += [lambda: _registry(config), lambda: _image(config.cluster), lambda: _kept(config.cluster)]
    for one in checks:
        if error := _tried(one):
            yield error
    yield from baselines.faults(config, here)
    if data:
        yield from _data(config)


def _tried(check: Callable[[], object]) -> IfasError | None:
    try:
        check()
    except IfasError as error:
        return error
    return None


def _sides(config: RunConfig) -> None:
    empty = [side for side in SIDES if not getattr(config.protocol, side)]
    if empty:
        raise ConfigError(
            f"protocol.{' and protocol.'.join(empty)} {'are' if len(empty) > 1 else 'is'} empty",
            f"name domains of the dataset, e.g. --set 'protocol.{empty[0]}=[NAME]'",
        )


def _policy(config: RunConfig, here: bool) -> None:
    from ifas.evaluation.metrics import BOOTSTRAPPED
    from ifas.promotion.gates import require_key
    from ifas.promotion.policy import file_of
    from ifas.steps.gate import policy_of
    from ifas.steps.ledger import gate_key, product_of

    file = file_of(config.gate.policy) if config.gate.policy else None
    if not here and (config.gate.policy is None or (file is not None and not file.exists())):
        return  # the product's, or in the image
    product = product_of(config) if here else None
    policy = policy_of(config, product)
    if here and (key := gate_key(config)):
        require_key(product, key)
    unmeasured = [rule.id for rule in policy.rules if rule.metric.startswith("explanation_")]
    if unmeasured and config.evaluate.explain == "none":
        raise ConfigError(
            f"policy {policy.name}: {', '.join(unmeasured)} can't be measured where evaluate.explain is none",
            "set evaluate.explain=all or gallery, or use a policy without these rules",
        )
    untried = [
        rule.id for rule in policy.rules if rule.metric.startswith(OF_HANDLED) or rule.slice.startswith("handling:")
    ]
    if untried and not (config.evaluate.robustness.images and config.evaluate.robustness.handlings):
        raise ConfigError(
            f"policy {policy.name}: {', '.join(untried)} can't be measured where evaluate.robustness is off",
            "set evaluate.robustness.images=10 or more, or use a policy without these rules",
        )
    unasked = [rule.id for rule in policy.rules if rule.metric.startswith(OF_MODES)]
    if unasked and not config.evaluate.modes.images:
        raise ConfigError(
            f"policy {policy.name}: {', '.join(unasked)} can't be measured where evaluate.modes.images is 0",
            "set evaluate.modes.images=20 or more, or use a policy without these rules",
        )
    bound = [rule.id for rule in policy.rules if rule.bound == "interval" and rule.metric in BOOTSTRAPPED]
    if bound and not config.evaluate.bootstrap:
        raise ConfigError(
            f"policy {policy.name}: {', '.join(bound)} bind intervals, which evaluate.bootstrap=0 does not make",
            "set evaluate.bootstrap=1000, or use a policy without these rules",
        )
    there = baselines.names(config)
    absent = sorted({rule.against for rule in policy.rules if rule.against} - set(there))
    if absent:
        raise ConfigError(
            f"policy {policy.name} compares with baseline {', '.join(absent)}, which this run does not have",
            f"it has: {', '.join(there) or 'none'}; set evaluate.probe=true with a frozen tower for {LINEAR_PROBE}, or "
            "--baseline NAME=FILE",
        )


def _weights_of_species(config: RunConfig) -> None:
    unknown = sorted(set(config.train.species_weights) - set(SPOOF_TYPES))
    if unknown:
        raise ConfigError(
            f"train.species_weights names {', '.join(unknown)}, which is not a spoof type",
            f"use some of: {', '.join(SPOOF_TYPES)}",
        )


def _storage(config: RunConfig) -> None:
    from ifas.core.storage import check_scheme

    if config.train.storage:
        check_scheme(config.train.storage)


def _events(config: RunConfig, here: bool) -> None:
    from ifas.core.urls import check_http
    from ifas.steps.announce import receiver

    if here:
        receiver(config)
    elif config.gate.events:  # the secret is the cluster's
        check_http(config.gate.events, "gate.events")


def _signing_keys(config: RunConfig, here: bool) -> None:
    """That of the gate is checked on this machine with its product, see `_policy`."""
    from ifas.promotion.statements import shown, signer
    from ifas.steps.ledger import GATE_KEY_ENV
    from ifas.steps.package import KEY_ENV

    if here:
        if config.package.key:
            signer(config.package.key)
        return
    keys = (("package.key", config.package.key, KEY_ENV), ("gate.key", config.gate.key, GATE_KEY_ENV))
    for field, key, variable in keys:
        if key and key != f"env:{variable}":
            raise ConfigError(
                f"{field} is {shown(key)}, which no pod has",
                f"put the key into the Secret ifas-credentials as {variable}, and --set {field}=env:{variable}",
            )


def check_pods(config: RunConfig) -> None:
    """What the pods of any pipeline need.

    Raises:
        ConfigError: they would have no image, nowhere to keep what later ones need, or not a key that is to sign.
    """
    _image(config.cluster)
    _kept(config.cluster)
    _signing_keys(config, here=False)


def _image(cluster: ClusterConfig) -> None:
    from ifas.launch.pods import image_of

    if not image_of(cluster):
        raise ConfigError(
            "cluster.image is empty, so the pods would have no image",
            "name it by digest: --set cluster.image=REGISTRY/ifas@sha256:..., or IFAS_IMAGE",
        )


def _kept(cluster: ClusterConfig) -> None:
    if not cluster.storage or (cluster.storage.startswith("/") and not cluster.storage_claim):
        what = f"a folder of each pod's own disk ({cluster.storage})" if cluster.storage else "empty"
        raise ConfigError(
            f"cluster.storage is {what}: every pod would forget its results, and why it failed",
            "--set cluster.storage=s3://BUCKET/PREFIX, or name a volume that pods share in cluster.storage_claim",
        )


def _registry(config: RunConfig) -> None:
    from ifas.data.dvc_repo import is_url

    registry, cluster = config.ingest.registry, config.cluster
    folder = os.path.normpath(registry.removeprefix("file://"))
    shared = bool(cluster.storage_claim) and Path(folder).is_relative_to(cluster.storage)
    if shared or (is_url(registry) and not registry.startswith("file://")):
        return
    raise ConfigError(
        f"ingest.registry is {registry}, a folder that no pod has",
        "--set ingest.registry=URL of the registry's git repository",
    )


def _tracking(config: RunConfig) -> None:
    if config.train.mlflow and find_spec("mlflow") is None:
        raise ConfigError("train.mlflow is set, but its client is not installed", "pip install mlflow-skinny")


def _captioner(config: RunConfig) -> None:
    from ifas.captioning.captioners import CAPTIONERS

    if config.caption.captioner not in CAPTIONERS:
        raise unknown_key("captioner", config.caption.captioner, CAPTIONERS)
    if config.caption.captioner == "transformers" and not config.caption.model:
        raise ConfigError("caption.captioner is transformers, but caption.model is empty", "name a folder or a hub id")


def _home() -> None:
    """The cache, the weights and the work of a step are written there."""
    try:
        check_writable(home())
    except OSError as error:
        raise MachineError(
            f"{home()} can't be written: {error.strerror}", "set IFAS_HOME to a folder that can be written"
        ) from error


def _ledger(config: RunConfig) -> None:
    from ifas.database.connection import check
    from ifas.promotion.upgrade import LEDGER
    from ifas.steps.ledger import ledger_url

    check(ledger_url(config), LEDGER)


def _sources(config: RunConfig) -> None:
    from ifas.model.sources import check

    for section in (config.model.vision, config.model.language):
        if section.source:
            check(section.source)
    if config.caption.captioner == "transformers" and config.caption.model:
        check(config.caption.model)


def notes(config: RunConfig) -> Iterable[str]:
    """What a person should know of a run that can take place: how much of the data each baseline covers."""
    return baselines.notes(config, _rows(config)) if config.evaluate.baselines else ()


def _rows(config: RunConfig) -> pd.DataFrame:
    from ifas.data.registry import Registry

    ingest = config.ingest
    return Registry(ingest.registry).manifest(ingest.dataset, ingest.revision, remote=ingest.remote)


def _data(config: RunConfig) -> Iterable[IfasError]:
    try:
        rows = _rows(config)
    except IfasError as error:
        yield error
    else:
        yield from faults_of_data(config, rows)


def faults_of_data(config: RunConfig, rows: pd.DataFrame) -> Iterable[IfasError]:
    """What the manifest of the revision lacks for the run's protocol, captioner and policy."""
    from ifas.steps.gate import policy_of
    from ifas.steps.ledger import product_of

    there = sorted(map(str, rows["domain"].unique()))
    wanted = {f"protocol.{side}": getattr(config.protocol, side) for side in SIDES}
    for name, domains in {**wanted, "caption.source_domains": config.caption.source_domains}.items():
        unknown = [domain for domain in domains if domain not in there]
        if unknown:
            yield ConfigError(
                f"{name} names {', '.join(unknown)}, which dataset {config.ingest.dataset} does not have",
                f"its domains are: {', '.join(there)}",
            )
    try:
        policy = policy_of(config, product_of(config))
        rules, named = policy.rules, policy.name
    except IfasError:
        rules, named = [], ""  # reported above
    usable = released(rows)
    for side, fixed, about in (("source_domains", ("train", "dev"), "source_test"), ("target_domains", (), "target")):
        domains = [domain for domain in getattr(config.protocol, side) if domain in there]
        # Training and the threshold need both classes; the test data must have what the policy asks for.
        needed = {split: {"live", "spoof"} for split in fixed}
        needed["test"] = set().union(*(_measured_on(rule.metric) for rule in rules if rule.slice == about))
        if domains:
            yield from _classes(usable[usable["domain"].isin(domains)], side, domains, needed)
    yield from _slices(config, rows, rules, named)
    yield from baselines.faults_of_rows(config, rows)


def _measured_on(metric: str) -> set[str]:
    """Labels without which a metric has no value."""
    if metric.startswith(("explanation_", *OF_HANDLED, *OF_MODES)):
        return set()
    return {"apcer_max": {"spoof"}, "apcer_pooled": {"spoof"}, "bpcer": {"live"}}.get(metric, {"live", "spoof"})


def _classes(rows: pd.DataFrame, side: str, domains: list[str], needed: dict[str, set[str]]) -> Iterable[IfasError]:
    """Splits of a side of the protocol without the bona fide images or the attacks that they need."""
    count = rows.groupby(["split", "label"]).size().to_dict()
    lacking = [
        f"no {'bona fide image' if label == 'live' else 'attack'} in split {split}"
        for split, labels in needed.items()
        for label in sorted(labels)
        if not count.get((split, label))
    ]
    if lacking:
        has = ", ".join(f"{n} {label} in {split}" for (split, label), n in sorted(count.items())) or "nothing"
        yield DataError(
            f"protocol.{side} ({', '.join(domains)}) has {', '.join(lacking)} among its released images",
            f"it has {has}: name other domains, or add such images",
        )


def _slices(config: RunConfig, rows: pd.DataFrame, rules: Sequence[Rule], policy: str) -> Iterable[IfasError]:
    """Rules of the policy about a domain, device, ... that no image has: such a rule would refuse every model."""
    for rule in rules:
        kind, colon, value = rule.slice.partition(":")
        if not colon or value == "*":
            continue
        if kind == "handling":
            if value not in config.evaluate.robustness.handlings:
                yield ConfigError(
                    f"policy {policy}: rule {rule.id!r} is about {rule.slice}, which this run does not try",
                    f"add {value} to evaluate.robustness.handlings, or name one of them in the rule",
                )
            continue
        if kind == "track":
            yield from _of_tracks(config, rows, rule, policy)
            continue
        tested = rows if kind == "batch" else rows[rows["split"] == "test"]
        known = sorted(map(str, tested[kind].dropna().unique()))
        if value not in known:
            yield ConfigError(
                f"policy {policy}: rule {rule.id!r} is about {rule.slice}, of which dataset "
                f"{config.ingest.dataset} has no test image",
                f"values of {kind} there: {', '.join(known) or 'none'}",
            )


def _of_tracks(config: RunConfig, rows: pd.DataFrame, rule: Rule, policy: str) -> Iterable[IfasError]:
    from ifas.core.measures import FIXED_SLICES
    from ifas.evaluation.tracks import several

    side = {"source_test": "source_domains", "target": "target_domains"}.get(rule.slice.partition(":")[2])
    if side is None:
        yield ConfigError(
            f"policy {policy}: rule {rule.id!r} is about {rule.slice}, which no evaluation has",
            f"use {' or '.join(f'track:{name}' for name in FIXED_SLICES)}",
        )
        return
    tested = released(rows[rows["split"] == "test"])
    if config.evaluate.unit == "track":
        what, fix = "which evaluate.unit=track measures as the slice itself", f"name {rule.slice.partition(':')[2]}"
    elif not several(tested[tested["domain"].isin(getattr(config.protocol, side))]):
        what, fix = "of which no test track has several images", "leave the rule out, or name a dataset of videos"
    else:
        return
    yield ConfigError(f"policy {policy}: rule {rule.id!r} is about {rule.slice}, {what}", fix)
