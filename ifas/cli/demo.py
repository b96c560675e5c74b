"""`ifas demo`: the whole chain on synthetic data, from rendering to two answers over HTTP."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ifas.cli.run import Runner, SetOption, refuse, run_pipeline
from ifas.core.errors import GateError, ImageRefused
from ifas.core.files import check_writable, locked, read_json, write_json
from ifas.core.home import home
from ifas.core.records import LINEAGE_FILE, PREDICTIONS_FILE

if TYPE_CHECKING:
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
    """Make demo data, run `retrain`, serve the Bento and ask it about a bona fide and an attack image."""
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
    for answer in answers:
        _print(answer)
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
    """Serves the run's Bento and asks it: the first bona fide and the first attack of the target test data, by id."""
    from ifas.serving.client import ask, serve

    pictures = _test_pictures(folder)
    pictures += [{"picture": str(path), "truth": "given by the user"} for path in more]
    with serve(folder / "bento", log=folder / "serve.log") as url:
        return [{**item, "answer": ask(url, Path(item["picture"]))} for item in pictures]


def _test_pictures(folder: Path) -> list[dict[str, Any]]:
    import pandas as pd

    from ifas.core.manifest import read_manifest
    from ifas.data.shards import ShardImages
    from ifas.steps.folder import output_of

    root = folder / "artifacts"
    dataset, captions = output_of(root, "ingest", "dataset"), output_of(root, "caption", "captions")
    if dataset is None or captions is None:
        raise GateError("the run left no dataset to ask about", f"look into {root}")
    manifest = read_manifest(captions, captioned=True).set_index("sample_id")
    predictions = pd.read_parquet(folder / PREDICTIONS_FILE)
    targets = load_targets(folder)
    tested = predictions[(predictions["split"] == "test") & predictions["domain"].isin(targets)].sort_values(
        "sample_id"
    )
    images = ShardImages(dataset)
    pictures = []
    for label in ("live", "spoof"):
        row = manifest.loc[tested[tested["label"] == label]["sample_id"].iloc[0]]
        path = folder / "demo" / f"{'bona_fide' if label == 'live' else 'attack'}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(images.read(row["shard"], int(row["row"])))
        pictures.append({"picture": str(path), "truth": row["pai_species"], "sample_id": row.name})
    return pictures


def load_targets(folder: Path) -> list[str]:
    """Target domains of a run."""
    targets: list[str] = json.loads((folder / "config.json").read_text())["protocol"]["target_domains"]
    return targets


def _print(item: dict[str, Any]) -> None:
    answer = item["answer"]
    typer.echo(f"asked     {item['picture']}  (truth: {item['truth']})")
    typer.echo(
        f"          verdict {answer['verdict']}, score {answer['score']:.3f} (threshold {answer['threshold']:.3f}), "
        f"spoof type {answer['spoof_type']}, model {answer['model_version']}"
    )
    typer.echo(f"          {answer['explanation']}")
