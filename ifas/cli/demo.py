"""`ifas demo`: the whole chain on synthetic data, from rendering to answers over HTTP."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ifas.cli.run import Runner, SetOption, refuse, run_pipeline
from ifas.core.errors import GateError, ImageRefused
from ifas.core.files import check_writable, locked, read_json, write_json
from ifas.core.home import home
from ifas.core.records import CONFIG_FILE, LINEAGE_FILE, METRICS_FILE

if TYPE_CHECKING:
    import pandas as pd

    from ifas.core.config import RunConfig

DATASET = "demo"


def demo(
    overrides: SetOption = None,
    config: Annotated[str, typer.Option("--config", "-c", help="Profile, or a YAML file.")] = "laptop",
    faces: Annotated[Path | None, typer.Option(help="Real portraits to stage instead of synthetic people.")] = None,
    runs: Annotated[Path, typer.Option()] = Path("runs"),
    runner: Annotated[Runner, typer.Option()] = Runner.kfp,
    ask: Annotated[list[Path] | None, typer.Option(help="More images to send to the served model.")] = None,
) -> None:
    """Make demo data, run `retrain`, serve the Bento; ask it about a bona fide image and one of each attack species."""
    from ifas.core.config import load
    from ifas.core.environment import prepare

    prepare()
    begin = time.monotonic()
    settings = load(config, overrides)
    _check(settings, faces, runs, ask or [])
    publish_demo(settings, faces)
    folder = run_pipeline(settings, runner, runs)
    if not (folder / "bento").exists():
        entries = read_json(folder / LINEAGE_FILE)["entries"]
        refuse(entries)
        state = entries[-1]["summary"]
        raise GateError(f"no Bento was built: {state}", f"read {folder / 'report.html'}, then `ifas show CANDIDATE`")
    answers = _ask(folder, ask or [])
    write_json(folder / "demo.json", answers)
    for line in answer_lines(answers, read_json(folder / METRICS_FILE)):
        typer.echo(line)
    typer.echo(f"report    {folder / 'report.html'}   ({time.monotonic() - begin:.0f} s in all)")


def _check(config: RunConfig, faces: Path | None, runs: Path, ask: list[Path]) -> None:
    """Checks that would otherwise fail after minutes of rendering and training."""
    from ifas.simulator import check_faces
    from ifas.steps import preflight

    if faces is not None:
        check_faces(faces)
    for picture in ask:
        if not picture.is_file():
            raise ImageRefused(f"{picture} is not a file", "name existing images with --ask")
    check_writable(runs)
    preflight.check(config, data=False)


def publish_demo(config: RunConfig, faces: Path | None) -> None:
    """Renders, packs and publishes the demo dataset; each part that is already there is reused."""
    from ifas.cli.data import progress_of
    from ifas.cli.show import following
    from ifas.core.progress import emit
    from ifas.data.pack import pack
    from ifas.data.registry import Registry
    from ifas.simulator import make_demo

    raw = home() / "demo" / ("faces" if faces else "raw")
    packed = home() / "demo" / f"{raw.name}-packed"
    with locked(home() / "demo.lock", _wait), following(home() / "events" / "demo.jsonl"):
        begin = time.monotonic()
        made = make_demo(raw, faces=faces, progress=progress_of("data"))
        seconds = time.monotonic() - begin
        emit(
            "done",
            "data",
            summary=f"{made.images} {'staged' if faces else 'synthetic'} images of {made.subjects} subjects",
            seconds=seconds,
            reused="same seed and renderer" if made.reused else "",
        )
        begin = time.monotonic()
        report = pack("folder", raw, packed, name=config.ingest.dataset)
        published = Registry.init(Path(config.ingest.registry)).publish(packed)
        emit(
            "done",
            "publish",
            summary=f"{report.rows} images as {published.tag} {published.revision[:10]}",
            seconds=time.monotonic() - begin,
            reused="" if published.changed else "same content is already registered",
        )


def _wait(since: str) -> None:
    typer.echo(f"another demo makes the dataset{f' since {since}' if since else ''}: waiting for it", err=True)


def _ask(folder: Path, more: list[Path]) -> list[dict[str, Any]]:
    """Serves the run's Bento and asks it about `_test_pictures`, and about images that the user names."""
    from ifas.serving.client import ask, serve

    def answered(url: str, image: str) -> dict[str, Any]:
        try:
            return dict(ask(url, Path(image)))
        except ImageRefused as refused:  # no verdict is an answer, too
            return {"verdict": None, "reason": refused.reason, "error": refused.what}

    pictures = _test_pictures(folder)
    pictures += [{"picture": str(path), "truth": None} for path in more]
    with serve(folder / "bento", log=folder / "serve.log") as url:
        return [{**item, "answer": answered(url, item["picture"])} for item in pictures]


def _test_pictures(folder: Path) -> list[dict[str, Any]]:
    """Of the unseen domains' test data the first image by id of bona fide and of each attack species."""
    from ifas.core.config import ProtocolConfig
    from ifas.core.manifest import read_manifest
    from ifas.data.shards import ShardImages
    from ifas.steps.folder import output_of

    root = folder / "artifacts"
    dataset, captions = output_of(root, "ingest", "dataset"), output_of(root, "caption", "captions")
    if dataset is None or captions is None:
        raise GateError("the run left no dataset to ask about", f"look into {root}")
    protocol = ProtocolConfig.model_validate(read_json(folder / CONFIG_FILE)["protocol"])
    chosen = first_of_each_species(read_manifest(captions, captioned=True), protocol.target_domains)
    images = ShardImages(dataset)
    pictures = []
    for row in chosen.itertuples():
        path = folder / "demo" / f"{row.pai_species}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(images.read(str(row.shard), int(row.row)))
        pictures.append({"picture": str(path), "truth": row.pai_species, "sample_id": row.sample_id})
    return pictures


def first_of_each_species(manifest: pd.DataFrame, targets: tuple[str, ...]) -> pd.DataFrame:
    """Released test rows of the target domains, the first by id of each PAI species, bona fide first.

    The choice knows no prediction.
    """
    from ifas.core.release_status import released

    rows = released(manifest[(manifest["split"] == "test") & manifest["domain"].isin(targets)])
    first = rows.sort_values("sample_id").drop_duplicates("pai_species")
    return first.sort_values("pai_species", key=lambda names: (names != "live").astype(str) + names)


def answer_lines(answers: list[dict[str, Any]], metrics: dict[str, Any]) -> list[str]:
    """Truth and answer of each image side by side, right or wrong; and how often answers are right in the test."""
    lines = []
    for item in answers:
        answer, truth = item["answer"], item["truth"]
        if answer["verdict"] is None:
            said, right = f"no verdict ({answer['reason']})", False
        elif answer["verdict"] == "live":
            said, right = f"live, score {answer['score']:.2f}", truth == "live"
        else:
            sure = answer["spoof_type_confidence"]
            said = f"{answer['spoof_type']} ({100 * sure:.0f} %), score {answer['score']:.2f}"
            right = truth is not None and truth != "live" and answer["spoof_type"] == truth.split(".")[0]
        mark = "     " if truth is None else "right" if right else "WRONG"
        lines.append(f"{mark}     {truth or item['picture']:15} answered {said}")
        lines.append(f"          {answer.get('explanation') or answer.get('error', '')}")
    target = metrics["slices"]["target"]
    shares = [
        ("bona fide accepted", target["bpcer"], True),
        ("attacks rejected", target["apcer_pooled"], True),
        ("of these named rightly", target["explanation_medium"], False),
    ]
    told = ", ".join(
        f"{name} {100 * (1 - entry['value'] if errors else entry['value']):.0f} % of {entry['n']}"
        for name, entry, errors in shares
        if entry["value"] is not None
    )
    return [*lines, f"test      {told}"]
