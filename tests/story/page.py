"""The page that tells the story, with the figures and pictures of the run that wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from PIL import Image

from tests.story import figures

Told = Mapping[str, Mapping[str, Any]]
#: Bytes of a picture of the page, at most.
LARGEST = 150_000
PICTURES = {
    "list": "The list of candidates: the champion, and the retrained model that waits for a decision",
    "decision": "The candidate's page: figures, rules, paired differences, and the form",
    "slices": "Slices of candidate and champion",
    "approved": "After the approval: who decided, and why",
    "refused": "The candidate that learned from poisoned masks: the rules that failed come first",
    "asked": "The pictures that the Bento was asked about, in the order of the table",
}
#: Markdown with a place for each figure.
PAGE = Path(__file__).with_name("page.md")


def write(told: Told, pictures: Path, page: Path) -> None:
    """Writes the page, and the pictures into the folder `pictures/<page's name>` beside it."""
    folder = page.parent / "pictures" / page.stem
    folder.mkdir(parents=True, exist_ok=True)
    asked = [Path(one["picture"]) for one in told["answers"]["asked"]]
    _strip(asked, pictures / "asked.png")
    for name in PICTURES:
        shrink(pictures / f"{name}.png", folder / f"{name}.png")
    page.write_text(text(told, date.today(), folder.relative_to(page.parent).as_posix()), encoding="utf-8")


def text(told: Told, day: date, folder: str) -> str:
    """The page in Markdown; its pictures lie in `folder`."""
    shown = {name: f"![{about}]({folder}/{name}.png)" for name, about in PICTURES.items()}
    retrain, poisoned = told["retrain"], told["poisoned"]
    failed = [rule for rule in poisoned["rules"] if not rule["passed"]]
    accepted, asked = told["quarantine"]["accepted"], told["answers"]["asked"]
    return PAGE.read_text(encoding="utf-8").format(
        day=day.isoformat(),
        minutes=sum(one["seconds"] for one in told.values()) / 60,
        images=told["world"]["images"],
        delivered=sum(one["n"] for one in accepted.values()),
        batches=_rows((name, one["n"], figures.with_interval(one)) for name, one in accepted.items()),
        paired=_rows(figures.differences(retrain)),
        rules=len(retrain["rules"]),
        review="\n\n".join(shown[name] for name in ("list", "decision", "slices", "approved")),
        reason=told["review"]["shown"]["history"][-1]["reason"],
        answers=_rows((f"`{one['truth']}`", one["why"], figures.answer(one["answer"])) for one in asked),
        asked=shown["asked"],
        poisoned=told["poison"]["delivered"],
        audited=told["poison"]["audited"],
        stopped=f"the gate refuses the candidate by {len(failed)} of {len(poisoned['rules'])} rules",
        why="\n".join(f"- {one}." for one in figures.reasons(failed)),
        refused=shown["refused"],
        seconds=_rows((name, f"{one['seconds']:.0f}") for name, one in told.items()),
    )


def shrink(source: Path, target: Path) -> None:
    """A PNG with as few colours as it takes to be small."""
    with Image.open(source) as picture:
        for colours in (128, 64, 32):
            picture.convert("RGB").quantize(colours).save(target, optimize=True)
            if target.stat().st_size <= LARGEST:
                return
    raise ValueError(f"{target} has {target.stat().st_size} bytes, at most {LARGEST} are wanted")


def _strip(pictures: list[Path], out: Path) -> None:
    side = 160
    strip = Image.new("RGB", (side * len(pictures), side))
    for number, file in enumerate(pictures):
        with Image.open(file) as one:
            strip.paste(one.convert("RGB").resize((side, side)), (side * number, 0))
    strip.save(out)


def _rows(rows: Iterable[tuple[object, ...]]) -> str:
    return "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)
