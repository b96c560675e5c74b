"""`ifas serve` and `ifas ask`: a Bento over HTTP."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer


def serve(
    bento: Annotated[Path, typer.Argument(help="Bento folder: runs/latest/bento, or `ifas package --out`.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 3000,
    key: Annotated[Path | None, typer.Option(help="Public key: serve only what it has signed, see `verify`.")] = None,
) -> None:
    """Serve a Bento on this machine until interrupted."""
    from ifas.core.environment import prepare
    from ifas.promotion.statements import verify_package
    from ifas.serving.client import serve as serve_bento

    prepare()
    if key is not None:
        verify_package(bento, key)
    with serve_bento(bento, port=port) as url:
        typer.echo(f"serving {bento} at {url}  (POST {url}/verify, stop with Ctrl-C)")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            typer.echo("stopped")


def verify(
    what: Annotated[Path, typer.Argument(help="Folder that `package` made, or the JSON of `ifas show CANDIDATE`.")],
    key: Annotated[Path, typer.Option(help="Public key (PEM): of who packages; for a candidate, the administrator's.")],
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Check that a Bento is, file by file, what was signed, or who decided about a candidate.

    Needs no ledger and no network. Of a candidate, it shows the decisions that the record has: an older copy of it does
    not know what was decided later.
    """
    from ifas.promotion.offline import verify_record
    from ifas.promotion.statements import verify_package

    if what.is_file() or what.suffix == ".json":
        record = verify_record(what, key)
        typer.echo(json.dumps(record.model_dump(mode="json"), indent=2) if as_json else record.summary)
        return
    said = verify_package(what, key)
    if as_json:
        typer.echo(json.dumps(said, indent=2))
        return
    package, approval = said["package"], said["approval"]
    typer.echo(
        f"{package['tag']} is what was signed: candidate {approval['candidate']} of product {approval['product']}, "
        f"approved {approval['at']} by {approval['actor']} ({approval['reason']}); threshold {package['threshold']:.4f}"
    )


def ask(
    image: Annotated[Path, typer.Argument(help="Image to judge.")],
    url: Annotated[str, typer.Option(help="Where the Bento is served.")] = "http://127.0.0.1:3000",
) -> None:
    """Send an image to a served Bento and print the answer as JSON."""
    from ifas.serving.client import ask as ask_bento

    typer.echo(json.dumps(ask_bento(url, image), indent=2))
