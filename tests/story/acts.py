"""The acts of the story, in order. Each gets the stage and what was told before, and returns what is to be told."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ifas.cli.demo import first_of_each_species
from ifas.core.files import read_json
from ifas.core.manifest import read_manifest
from ifas.core.records import PREDICTIONS_FILE
from ifas.data.shards import ShardImages
from ifas.serving.client import ask, serve
from ifas.steps.folder import output_of
from tests.drills.chain import Failed
from tests.story.browser import shot, signed_in, whole
from tests.story.stage import DATASET, HERE, PRODUCT, Stage
from tests.story.world import MASK, Delivery, deliver, without_masks

Told = Mapping[str, Mapping[str, Any]]
Act = Callable[[Stage, Told], dict[str, Any]]

#: Of the source domains what fills the share of one source; of the target domain more people, a quarter of whom are
#: in the test split.
MASKS = (
    Delivery("office", 11, (0, 20)),
    Delivery("street", 11, (20, 40)),
    Delivery("home", 11, (40, 60)),
    Delivery("kiosk", 11, (60, 120)),
)
#: Enough to fill the share of one source.
POISON = (Delivery("office", 23, (0, 30)), Delivery("home", 23, (30, 60)))
REASON = "Masks are detected now, and nobody else pays for it: read every rule and the slices."
ABOUT = ("--name", DATASET, "--licence", "CC0-1.0")


def world(stage: Stage, _told: Told) -> dict[str, Any]:
    """The demo's world without its masks is registered, and the product with its policy and its reviewer."""
    images = without_masks(stage.root / "raw")
    stage.ifas("data", "pack", "folder", stage.root / "raw", "--out", stage.root / "packed", "--name", DATASET)
    stage.data("init")
    stage.data("publish", stage.root / "packed")
    stage.ifas(
        "product", "register", PRODUCT, "--policy", HERE / "door.yaml", "--reason", "the front door",
        "--key", stage.keys.private("ada"), "--reviewer", f"rita={stage.public('rita')}",
        "--reviewer", f"rita={stage.public('page')}", "-c", stage.config,
    )  # fmt: skip
    return {"images": images}


def champion(stage: Stage, _told: Told) -> dict[str, Any]:
    """A model is trained without masks; the reviewer approves it on the command line, by her key."""
    run, _ = stage.run()
    candidate = stage.candidate(run)["candidate"]
    reason = "the first model; every rule holds"
    stage.ifas("approve", candidate, "--reason", reason, "--key", stage.keys.private("rita"), "-c", stage.config)
    return {"run": str(run), "candidate": candidate, "slices": headline(stage.metrics(run))}


def quarantine(stage: Stage, told: Told) -> dict[str, Any]:
    """The red team delivers masks. The champion is evaluated on them, and nothing is trained on them."""
    batches = [_add(stage, "red-team", one, MASK, "ruth") for one in MASKS]
    look = stage.steps("masks-arrived", ("ingest", "caption", "validate"))
    model = output_of(Path(told["champion"]["run"]) / "artifacts", "train", "model")
    if model is None:
        raise Failed(f"the run of the champion left no model: {told['champion']['run']}")
    stage.steps("masks-arrived", ("evaluate",), model=model)
    slices = stage.metrics(look / "evaluation")["slices"]
    accepted = {batch: slices[f"batch:{batch}"]["apcer"][MASK] for batch in batches}
    return {"look": str(look), "batches": batches, "accepted": accepted}


def release(stage: Stage, told: Told) -> dict[str, Any]:
    """A second person looks at the masks and releases them to training."""
    _release(stage, told["quarantine"], "sam", "looked at all of them: masks, and labelled so")
    return {}


def retrain(stage: Stage, _told: Told) -> dict[str, Any]:
    """The pipeline runs again; the gate compares with the champion on the same pictures. A person must decide."""
    run, _ = stage.run()
    return {"run": str(run), **_judged(stage, run)}


def review(stage: Stage, told: Told) -> dict[str, Any]:
    """The reviewer signs in with a browser, reads what the page says of masks, and approves with a reason."""
    candidate, pictures = told["retrain"]["candidate"], stage.root / "pictures"
    with signed_in(stage, "rita") as page:
        shot(page, pictures / "list.png")
        page.click(f"a[href='/candidates/{candidate}']")
        page.wait_for_selector("#reason")
        whole(page)
        shot(page, pictures / "decision.png")
        read = [row.inner_text() for row in page.locator("table.rules tbody tr").all()]
        shot(page, pictures / "slices.png", "section[aria-labelledby=h-slices] .plots")
        page.fill("#reason", REASON)
        page.click("button[value=approve]")
        page.get_by_role("status").wait_for()
        page.locator(".history").scroll_into_view_if_needed()
        shot(page, pictures / "approved.png")
        said = page.get_by_role("status").inner_text()
    return {"read": read, "said": said, "shown": stage.show(candidate)}


def package(stage: Stage, told: Told) -> dict[str, Any]:
    """The approved candidate becomes a Bento."""
    stage.ifas("package", told["retrain"]["candidate"], "--out", stage.root / "bento", "-c", stage.config)
    return {}


def answers(stage: Stage, told: Told) -> dict[str, Any]:
    """The Bento is asked about a picture of each species, and about a mask that the champion accepted.

    Which pictures these are is decided by id before anything is asked: of the target's released test pictures the
    first of each species, and the first of the masks that the champion accepted and the candidate rejected.
    """
    run = Path(told["retrain"]["run"])
    pictures = _chosen(stage, run, Path(told["quarantine"]["look"]) / "evaluation")
    with serve(stage.root / "bento", log=stage.root / "serve.log") as url:
        return {"asked": [{**one, "answer": ask(url, Path(one["picture"]))} for one in pictures]}


def poison(stage: Stage, _told: Told) -> dict[str, Any]:
    """Somebody else delivers masks labelled as bona fide, and a careless second person releases them."""
    batches = [_add(stage, "vendor", one, "live", "vic") for one in POISON]
    look = stage.steps("poison-arrived", ("ingest", "caption", "validate"))
    sections = {one["id"]: one for one in read_json(look / "validation" / "results.json")["sections"]}
    return {
        "look": str(look),
        "batches": batches,
        "delivered": sum(last - first for first, last in (one.people for one in POISON)),
        "audited": sections["label-audit"]["species"].get("live", 0),
    }


def careless(stage: Stage, told: Told) -> dict[str, Any]:
    """A second person releases the poisoned batches without a look."""
    _release(stage, told["poison"], "carl", "validation passed")
    return {}


def poisoned(stage: Stage, _told: Told) -> dict[str, Any]:
    """The pipeline runs on them, too; the gate refuses what comes out."""
    run, ended = stage.run(codes=(8,))
    return {"run": str(run), "code": ended.code, "said": ended.text[-3000:], **_judged(stage, run)}


def refused(stage: Stage, told: Told) -> dict[str, Any]:
    """The reviewer opens it: the page says why, and offers no approval."""
    with signed_in(stage, "rita") as page:
        page.click(f"a[href='/candidates/{told['poisoned']['candidate']}']")
        page.wait_for_selector("table.rules")
        whole(page)
        shot(page, stage.root / "pictures" / "refused.png")
        return {
            "approve": page.locator("button[value=approve]").count(),
            "failed": [row.inner_text() for row in page.locator("table.rules tr.fail").all()],
        }


def headline(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Slice -> the figures that the story tells, with interval, n and subjects."""
    names = ("target", "source_test", "spoof_type:mask", "spoof_type:print", "spoof_type:replay")
    wanted = ("auc", "bpcer", "apcer_max", "apcer_pooled")
    slices = metrics["slices"]
    return {name: {one: slices[name].get(one) for one in wanted} for name in names if name in slices}


def _judged(stage: Stage, run: Path) -> dict[str, Any]:
    record, metrics = stage.candidate(run), stage.metrics(run)
    return {
        "candidate": record["candidate"],
        "state": record["state"],
        "rules": record["decision"]["rules"],
        "slices": headline(metrics),
        "paired": headline(metrics["against_champion"]),
    }


def _add(stage: Stage, source: str, delivery: Delivery, species: str, by: str) -> str:
    """`ifas data add` of a delivery: the batch's name."""
    folder = deliver(delivery, stage.root / "deliveries" / source / delivery.domain)
    said = stage.data(
        "add", folder, *ABOUT, "--source", source, "--species", species, "--domain", delivery.domain, "--by", by
    ).text
    found = re.search(rf"^{source}\.\d+(?=:)", said, re.MULTILINE)
    if found is None:
        raise Failed(f"`ifas data add` names no batch:\n{said}")
    return found.group()


def _release(stage: Stage, arrived: Mapping[str, Any], by: str, reason: str) -> None:
    for batch in arrived["batches"]:
        stage.data("release", batch, "--name", DATASET, "--run", arrived["look"], "--reason", reason, "--by", by)


def _verdicts(folder: Path) -> pd.Series:
    """Whether each picture was accepted, by its id."""
    return pd.read_parquet(folder / PREDICTIONS_FILE).set_index("sample_id")["verdict"]


def _chosen(stage: Stage, run: Path, champion_on: Path) -> list[dict[str, Any]]:
    """Pictures to ask about, with truth and why they were chosen; as files below the stage's folder."""
    root = run / "artifacts"
    dataset, captions = output_of(root, "ingest", "dataset"), output_of(root, "caption", "captions")
    if dataset is None or captions is None:
        raise Failed(f"{run} has no dataset to ask about")
    manifest = read_manifest(captions, captioned=True)
    first = first_of_each_species(manifest, stage.protocol.target_domains).assign(why="the first of its species")
    rows = manifest[(manifest["pai_species"] == MASK) & (manifest["split"] == "test")]
    rows = rows[rows["domain"].isin(stage.protocol.target_domains)].sort_values("sample_id")
    # A verdict is missing where no face was found: then nobody accepted and nobody rejected it.
    accepted = _verdicts(champion_on).reindex(rows["sample_id"]).fillna(False).to_numpy(dtype=bool)
    rejected = ~_verdicts(run).reindex(rows["sample_id"]).fillna(True).to_numpy(dtype=bool)
    turned = rows[accepted & rejected].head(1).assign(why="the first mask that the champion accepted")
    images, found = ShardImages(dataset), []
    for row in pd.concat([first, turned]).itertuples():
        file = stage.root / "asked" / f"{row.pai_species}-{row.sample_id[:8]}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(images.read(str(row.shard), int(row.row)))
        found.append({"picture": str(file), "truth": row.pai_species, "id": row.sample_id, "why": row.why})
    return found
