"""`ifas data`: demo data, packing, and the registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ifas.cli import data_diff, data_import, data_quarantine
from ifas.core.environment import prepare
from ifas.core.home import home
from ifas.core.outputs import producing, require_ours
from ifas.core.progress import Progress

app = typer.Typer(no_args_is_help=True)
app.command("import")(data_import.import_data)
app.command("diff")(data_diff.diff_data)
app.command("add")(data_quarantine.add)
app.command("batches")(data_quarantine.batches)
app.command("release")(data_quarantine.release)

RegistryOption = Annotated[Path, typer.Option("--registry", help="Dataset registry: a git repository with DVC.")]


@app.command("demo")
def demo_data(
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("data/raw/demo"),
    faces: Annotated[
        Path | None, typer.Option(help="Folder of real portraits to stage as the subjects (no masks then).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 7,
    subjects: Annotated[
        int | None, typer.Option(min=6, max=100_000, help="Identities; by default 44, or all of --faces.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=4096)] = 2,
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet, .jpg or .png.")] = None,
) -> None:
    """Make the synthetic demo dataset: people, prints, replays and masks in front of simulated cameras."""
    prepare()
    from ifas.cli.show import following
    from ifas.simulator import check_sheet, contact_sheet, make_demo

    if sheet is not None:
        check_sheet(sheet)
        require_ours(sheet)
    with following(home() / "events" / "data-demo.jsonl"):
        summary = make_demo(
            out, seed=seed, faces=faces, subjects=subjects, workers=workers, progress=progress_of("data")
        )
    if sheet is not None:
        with producing(sheet) as beside:
            contact_sheet(out, beside)
    typer.echo(f"{summary.images} images of {summary.subjects} subjects in {out}: {dict(summary.kinds)}")
    for file, reason in summary.skipped:
        typer.echo(f"skipped {file}: {reason}", err=True)


def progress_of(step: str) -> Callable[[int, int], None]:
    """A (done, total) callback that emits progress events."""
    bars: dict[int, Progress] = {}

    def advance(done: int, total: int) -> None:
        bar = bars.setdefault(total, Progress(step, total=total))
        bar.advance(done - bar.done)

    return advance


@app.command("pack")
def pack_data(
    layout: Annotated[str, typer.Argument(help="Reader, such as folder; an unknown one lists them.")],
    root: Annotated[Path, typer.Argument(help="The dataset as it is distributed.")],
    out: Annotated[Path, typer.Option(help="Dataset folder to make.")],
    name: Annotated[str, typer.Option(help="Name of the dataset.")],
    licence: Annotated[str | None, typer.Option(help="SPDX id or terms, where the layout does not say.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=4096, help="Processes that pack.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what was found.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Pack a dataset into Parquet shards and a manifest. A bad file is counted and listed; it never ends the run."""
    prepare()
    from ifas.data.pack import pack
    from ifas.data.readers import reader

    if dry_run:
        found = reader(layout).scan(root)
        counts: dict[str, int] = {}
        for sample in found.samples:
            counts[sample.pai_species] = counts.get(sample.pai_species, 0) + 1
        subjects = len({s.subject_id for s in found.samples})
        facts = {
            "images": len(found.samples),
            "subjects": subjects,
            "species": counts,
            "unrecognised": list(found.unrecognised),
        }
        typer.echo(json.dumps(facts, indent=2))
        return
    report = pack(layout, root, out, name=name, licence=licence, workers=workers)
    if as_json:
        typer.echo(json.dumps(report.facts, indent=2))
        return
    typer.echo(report.summary)
    for refusal in report.refused:
        typer.echo(f"refused {refusal.source}: {refusal.reason}", err=True)


@app.command("init")
def init_registry(
    path: RegistryOption = Path(".ifas/registry"),
    remote: Annotated[str | None, typer.Option(help="Folder or s3://bucket/prefix; default: beside the registry.")] = (
        None
    ),
    endpoint: Annotated[str | None, typer.Option(help="S3 endpoint URL. Credentials: AWS_* variables.")] = None,
) -> None:
    """Make a dataset registry (again: nothing changes)."""
    from ifas.data.registry import Registry

    registry = Registry.init(path, remote, endpoint=endpoint)
    typer.echo(f"registry {registry.path}")


@app.command("publish")
def publish(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder made by `ifas data pack`.")],
    path: RegistryOption = Path(".ifas/registry"),
    message: Annotated[str, typer.Option()] = "",
) -> None:
    """Add a packed dataset to the registry, push it to the remote, and print its revision."""
    prepare()
    from ifas.data.registry import Registry

    published = Registry(path).publish(dataset, message=message)
    typer.echo(f"{published.tag} {published.revision}{'' if published.changed else ' (unchanged)'}")


@app.command("revisions")
def revisions(
    name: Annotated[str, typer.Argument(help="Dataset.")],
    path: RegistryOption = Path(".ifas/registry"),
) -> None:
    """Revisions of a dataset, newest first."""
    from ifas.data.registry import Registry

    for item in Registry(path).revisions(name):
        typer.echo(str(item))
