"""The second stage: wrong attack names are unlearnt, verdicts stay, only then it is kept, and a kill redoes nothing."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toy_training import CAPTIONS, ToyImages, config, job, manifest, picture

from ifas.core.claims import Known
from ifas.core.config import AlignConfig, RunConfig, load
from ifas.core.errors import DataError
from ifas.core.files import sha256_file
from ifas.core.imaging import decode
from ifas.core.records import UNREADABLE_FILE, Lineage
from ifas.faces.face import Face
from ifas.model.build import build
from ifas.model.build import load as load_model
from ifas.steps import train as step
from ifas.steps.contract import STEPS, Context
from ifas.training import driver
from ifas.training.alignment import stage
from ifas.training.alignment.answers import Answer, Respondent
from ifas.training.alignment.examples import Example, faces, measurable, minable
from ifas.training.alignment.mixture import correctives, mixture
from ifas.training.alignment.report import MEASURES, compare, keep, paired_interval, reference
from ifas.training.curve import CURVE_FILE
from ifas.training.job import FINAL, fingerprint, rows_of
from ifas.training.loop import run
from ifas.training.record import TRAINING_FILE
from ifas.validation.unreadable import COLUMNS
from tests import toy_dataset

SWAPPED = {"live": CAPTIONS["live"], "print": CAPTIONS["replay"], "replay": CAPTIONS["print"]}
CUES = step.cues.cues()


def frame(first: int, n: int, split: str, captions: dict[str, str] = CAPTIONS) -> pd.DataFrame:
    """Rows of the toy task from number `first` on; three pictures per person."""
    made = manifest(first + n).iloc[first:].reset_index(drop=True)
    return made.assign(
        split=split,
        subject_id=[f"{split}{i // 3}" for i in range(n)],
        pai_species=made["spoof_type"],
        evidence="{}",
        caption=[captions[kind] for kind in made["spoof_type"]],
    )


@pytest.mark.slow
def test_wrong_attack_names_are_unlearnt_and_verdicts_are_not_worse(tmp_path: Path, alone: None) -> None:
    bare = "model.name_attack=false"  # a phrase would name the attack rightly
    settings = (
        "train.batch=9",
        "train.checkpoint_every=1000",
        "model.language.lr=0.01",
        "model.max_answer_tokens=24",
        bare,
    )
    first = job(tmp_path / "1", "train.steps=90", *settings, rows=rows_of(frame(0, 36, "train", SWAPPED)))
    run(first)
    model, processor = load_model(first.run / FINAL)
    rows = frame(0, 36, "train")
    examples = minable(rows, set(), 36)
    asked = Respondent(model, processor)
    said = asked.sample(
        faces(examples, ToyImages()), [e.known.sample_id for e in examples], draws=3, temperature=1.0, seed=0
    )
    turns, errors = correctives(list(zip(examples, said, strict=True)), CUES, most=4)
    assert errors["wrong attack"] > 30
    second = config(*settings, "align.steps=120", "align.lr_factor=0.5")
    model_config, train_config = stage.second_stage(second.align, second.model, second.train)
    made = job(tmp_path / "2", rows=mixture(rows_of(rows), [t.row() for t in turns], balance=True, weighted=False))
    run(replace(made, model=model_config, train=train_config, base=str(first.run / FINAL)))

    judged = measurable(frame(300, 60, "dev"), set(rows["sample_id"]), 100)
    answers = [
        list(Respondent(*load_model(folder / FINAL)).greedy(faces(judged, ToyImages())))
        for folder in (first.run, made.run)
    ]
    scores = compare(judged, *answers, CUES, resamples=500, seed=0)
    assert scores["right_attack"]["before"]["value"] < 0.2
    assert scores["right_attack"]["after"]["value"] > 0.8
    assert scores["right_attack"]["interval"][0] > 0.5
    assert scores["invented_medium"]["after"]["value"] < scores["invented_medium"]["before"]["value"] - 0.3
    assert keep(scores, 0.05)[0], keep(scores, 0.05)[1]


def test_questions_of_any_length_in_a_batch_add_up_to_those_alone(tmp_path: Path) -> None:
    """The loss of a batch with other questions is that of its samples one by one: padding changes nothing."""
    model, processor = build(config().model)
    shown = [processor.views(Face.whole(decode(picture(i)))) for i in range(3)]
    given = ([True, False, True], ["A person.", "Paper.", "A long text about a screen."])
    asked, judged = ["", "Is the face on a screen?", "Is it?"], [True, True, False]
    together = model(**processor.batch(shown, *given, questions=asked, judged=judged))
    sums, counts = torch.zeros(2), torch.zeros(2)
    for i in range(3):
        part = [[column[i]] for column in (shown, *given)]
        one = model(**processor.batch(*part, questions=asked[i : i + 1], judged=judged[i : i + 1]))  # type: ignore[arg-type]
        sums, counts = sums + one.sums, counts + one.counts
    assert torch.equal(together.counts, counts)
    assert torch.allclose(together.sums, sums, rtol=1e-5)


def test_stages_have_different_fingerprints(tmp_path: Path, alone: None) -> None:
    first = job(tmp_path / "r", "train.steps=1")
    run(first)
    rows = rows_of(manifest())
    marks = {fingerprint(first.model, first.train, rows, base) for base in (None, first.run / FINAL)}
    other = job(tmp_path / "s", "train.steps=1", "train.seed=1")
    run(other)
    marks.add(fingerprint(first.model, first.train, rows, other.run / FINAL))
    assert len(marks) == 3
    turn = rows[0]._replace(question="Is it?", yes=True)
    assert fingerprint(first.model, first.train, (turn,)) != fingerprint(first.model, first.train, rows[:1])
    assert turn.reply
    assert not turn._replace(yes=False).reply
    assert [row.reply for row in rows[:2]] == [True, False]


def test_the_second_stage_trains_on_from_the_first(tmp_path: Path, alone: None) -> None:
    first = job(tmp_path / "1", "train.steps=2")
    run(first)
    kept = job(tmp_path / "2", "train.steps=1", "model.language.lr=0", "model.connector.lr=0", "model.vision.lr=0")
    run(replace(kept, base=str(first.run / FINAL)))
    weights = [folder.run / FINAL / "model.safetensors" for folder in (first, kept)]
    assert sha256_file(weights[0]) == sha256_file(weights[1]), "without a learning rate it is the first model"


def judged(n: int, flips: Callable[[int], bool]) -> tuple[list[Example], list[Answer], list[Answer]]:
    examples = [Example(Known(f"{i:x}", "print", "print.a4"), "s", i, None, f"p{i // 2}", "Paper.") for i in range(n)]
    right, wrong = Answer(False, "Printed paper."), Answer(True, "A person.")
    return examples, [right] * n, [wrong if flips(i) else right for i in range(n)]


def test_a_stage_with_worse_verdicts_is_not_kept() -> None:
    same = compare(*judged(40, lambda i: False), CUES, resamples=300, seed=0)
    assert same["verdict_accuracy"]["interval"] == [0.0, 0.0]
    assert keep(same, 0.02)[0]
    worse = compare(*judged(40, lambda i: i % 10 == 0), CUES, resamples=300, seed=0)
    assert worse["verdict_accuracy"]["difference"] == -0.1
    low, high = worse["verdict_accuracy"]["interval"]
    assert low < -0.1 < high
    assert not keep(worse, 0.02)[0]
    assert keep(worse, 0.5)[0]
    alone = compare(*judged(2, lambda i: False), CUES, resamples=300, seed=0)
    kept, why = keep(alone, 0.02)
    assert not kept
    assert "too few" in why


def test_the_paired_interval_is_that_of_a_plain_bootstrap_and_draws_subjects() -> None:
    before: list[bool | None] = [True, False, None, True, True, False, True, False]
    after: list[bool | None] = [True, True, True, None, True, False, False, True]
    subjects = ["a", "a", "b", "b", "c", "c", "d", "d"]
    times = np.random.default_rng(5).multinomial(4, [0.25] * 4, size=400)
    plain = []
    for draw in times:
        shares = []
        for side in (before, after):
            counted = [
                v
                for s, n in zip("abcd", draw, strict=True)
                for _ in range(n)
                for v, w in zip(side, subjects, strict=True)
                if w == s and v is not None
            ]
            shares.append(sum(counted) / len(counted) if counted else np.nan)
        plain.append(shares[1] - shares[0])
    wanted = np.nanpercentile(plain, [2.5, 97.5])
    assert paired_interval(before, after, subjects, resamples=400, seed=5) == pytest.approx(wanted, abs=1e-4)
    # Pictures of one person move together: fewer people, a wider interval.
    many, few = [str(i) for i in range(200)], [str(i // 20) for i in range(200)]
    side = [i % 40 < 20 for i in range(200)]
    widths = [
        high - low
        for who in (many, few)
        for low, high in [paired_interval([False] * 200, side, who, resamples=400, seed=0) or [0, 0]]
    ]
    assert widths[1] > 2 * widths[0]


def test_measures_of_explanations() -> None:
    cues = {**dict.fromkeys(CUES, 0.0), "bezel": 0.9}
    replay = Example(Known("1", "replay", "replay.phone", cues), "s", 0, None, "p", "On a screen.")
    live = Example(Known("2", "live", "live", dict.fromkeys(CUES, 0.0)), "s", 1, None, "q", "A person.")

    def measured(answer: Answer, example: Example) -> dict[str, bool | None]:
        return {name: measure(answer, example, CUES) for name, measure in MEASURES.items()}

    right = measured(Answer(False, "On a screen with a dark frame."), replay)
    assert right == {
        "agreement": True,
        "right_attack": True,
        "invented_medium": False,
        "invented_cue": False,
        "contradiction": False,
        "verdict_accuracy": True,
    }
    wrong = measured(Answer(False, "Printed paper, the face shines."), live)
    assert wrong["invented_medium"]
    assert wrong["invented_cue"]
    assert wrong["right_attack"] is None
    assert not wrong["verdict_accuracy"]
    assert measured(Answer(True, "A screen."), live)["contradiction"]
    assert measured(Answer(True, "A screen."), replay)["right_attack"] is None, "an accepted attack names nothing"
    assert reference([replay, live], CUES)["verdict_accuracy"] == {"value": 1.0, "hits": 2, "n": 2}


def test_the_cache_key_knows_the_section_and_the_cues() -> None:
    assert "align" in STEPS["train"].sections
    off, on = load("tiny"), load("tiny", ["align.enabled=true"])
    assert "cues" not in STEPS["train"].identity(off, {})
    named = STEPS["train"].identity(on, {})["cues"]
    assert named["bezel"][0] == "a straight dark frame runs beside the head"
    assert json.loads(json.dumps(named)) == named


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A packed and captioned dataset of drawn pictures."""
    from ifas.captioning.scf import run_scf
    from ifas.core.manifest import read_manifest
    from ifas.data.pack import pack
    from ifas.data.shards import ShardImages

    root = tmp_path_factory.mktemp("data")
    pack("folder", toy_dataset.make(root / "raw"), root / "dataset", name="toy")
    quick = load("tiny").caption
    run_scf(
        read_manifest(root / "dataset"),
        ShardImages(root / "dataset"),
        quick,
        source_domains=["office", "street"],
        out=root / "captions",
    )
    pd.DataFrame({name: pd.Series(dtype="string") for name in (*COLUMNS, "reason")}).to_parquet(root / UNREADABLE_FILE)
    return {"dataset": root / "dataset", "captions": root / "captions", "validation": root}


FIT = driver.fit
SETTINGS = ["align.enabled=true", "align.images=12", "align.samples=2", "align.steps=4", "train.checkpoint_every=2"]


def stepped(inputs: dict[str, Path], root: Path, *overrides: str, ray: bool = False) -> dict[str, Any]:
    """Runs the train step with a work folder that stays; its facts and summary.

    Without `ray`, the workers are this process.
    """
    (root / "work").mkdir(parents=True, exist_ok=True)
    if not ray:
        driver.fit = lambda job, _began: run(job)  # type: ignore[assignment]
    made: RunConfig = load("tiny", [*SETTINGS, *overrides])
    places = {name: root / name for name in ("work", "lineage_out", "failed")}
    context = Context(run_id="r", lineage=Lineage(run_id="r"), **places)
    try:
        result = step.run(made, inputs, {"model": root / "model"}, context)
    finally:
        driver.fit = FIT
    return {**result.facts, "summary": result.summary}


def beside(inputs: dict[str, Path], root: Path, *overrides: str, ray: bool = False) -> subprocess.Popen[bytes]:
    """`stepped` in a process of its own."""
    named = {name: str(path) for name, path in inputs.items()}
    script = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\n"
        "from pathlib import Path\n"
        "from test_alignment import stepped\n"
        f"stepped({{k: Path(v) for k, v in {named!r}.items()}}, Path({str(root)!r}), *{overrides!r}, ray={ray})\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "MASTER_PORT": port})


def kill_once(root: Path, there: str, process: subprocess.Popen[bytes]) -> None:
    """Kills the step that works in `root` once its work folder holds `there`, and before the second model is done."""
    deadline = time.monotonic() + 400
    while not list((root / "work").glob(there)):
        assert process.poll() is None, "the step ended by itself"
        assert time.monotonic() < deadline, f"no {there}"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (root / "model").exists()
    assert not (root / "work" / "second").exists()


@pytest.mark.slow
def test_a_kill_between_the_stages_redoes_no_stage_and_changes_nothing(
    captioned: dict[str, Path], tmp_path: Path, alone: None
) -> None:
    whole = stepped(captioned, tmp_path / "whole", "align.margin=1")
    found = json.loads((tmp_path / "whole" / "model" / stage.ALIGNMENT_FILE).read_text())
    assert whole["alignment"]["kept"] is found["kept"] is True
    assert found["turns"]["count"] > 0
    assert "alignment kept" in whole["summary"]
    assert whole["steps"] == 6, "the record is that of the first stage"
    assert found["training"]["steps"] == 4
    assert (tmp_path / "whole" / "model" / stage.ALIGNMENT_CURVE_FILE).read_text().count("\n") == 4
    load_model(tmp_path / "whole" / "model")

    # Only released train rows of the source domains were mined, only such dev rows measured.
    rows = pd.read_parquet(captioned["captions"] / "manifest.parquet").set_index("sample_id")
    answers = next((tmp_path / "whole" / "work").glob(f"*{stage.ANSWERS_FILE}")).read_text().splitlines()
    mined = rows.loc[[json.loads(line)["sample_id"] for line in answers]]
    assert len(mined) == 12
    assert set(mined["split"]) == {"train"}
    assert set(mined["domain"]) <= {"office", "street"}
    assert found["dev"] == {"pictures": 24, "subjects": 3}

    killed = tmp_path / "killed"
    # Mined already, the second training not yet done.
    kill_once(killed, f"*{stage.ANSWERS_FILE}", beside(captioned, killed, "align.margin=1"))
    first = killed / "work" / "first" / "model.safetensors"
    stamps = [first.stat().st_mtime_ns, *(f.stat().st_mtime_ns for f in (killed / "work").glob("*answers.jsonl"))]

    again = stepped(captioned, killed, "align.margin=1")
    after = [first.stat().st_mtime_ns, *(f.stat().st_mtime_ns for f in (killed / "work").glob("*answers.jsonl"))]
    assert stamps == after, "the first stage and the mined answers were taken as they were"
    assert again["alignment"] == whole["alignment"]
    assert sha256_file(killed / "model" / "model.safetensors") == sha256_file(
        tmp_path / "whole" / "model" / "model.safetensors"
    )


@pytest.mark.slow
def test_a_kill_in_the_second_stage_under_ray_changes_nothing(
    captioned: dict[str, Path], tmp_path: Path, alone: None
) -> None:
    settings = ("align.margin=1", "align.steps=30", "train.workers=1")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    # Both go on from one first stage and its mined answers, made here without Ray.
    stepped(captioned, tmp_path / "first", *settings)
    shutil.rmtree(tmp_path / "first" / "work" / "second")
    for folder in (killed, whole):
        shutil.copytree(tmp_path / "first" / "work", folder / "work")
    kill_once(killed, "*-align-*/checkpoint_*/progress.json", beside(captioned, killed, *settings, ray=True))

    again = beside(captioned, killed, *settings, ray=True)
    assert again.wait(timeout=400) == 0
    found = json.loads((killed / "model" / stage.ALIGNMENT_FILE).read_text())
    assert found["kept"] is True
    assert 0 < found["training"]["resumed_from"] < 30
    assert beside(captioned, whole, *settings, ray=True).wait(timeout=400) == 0
    assert sha256_file(killed / "model" / "model.safetensors") == sha256_file(whole / "model" / "model.safetensors")


def finished(folder: Path, seed: int) -> Path:
    """A trained model directory as the driver leaves it."""
    made = job(folder, "train.steps=1", f"train.seed={seed}")
    run(made)
    (made.run / FINAL / TRAINING_FILE).write_text(json.dumps({"seed": seed}))
    shutil.copy(made.run / CURVE_FILE, made.run / FINAL / CURVE_FILE)
    return made.run / FINAL


def test_the_second_model_is_handed_on_only_where_it_is_kept(tmp_path: Path, alone: None) -> None:
    folders = first, second = finished(tmp_path / "1", 1), finished(tmp_path / "2", 2)
    for kept in (True, False):
        stage._write({"kept": kept, "why": "measured"}, first, second, tmp_path / "out")
        out = tmp_path / "out"
        assert sha256_file(out / "model.safetensors") == sha256_file(folders[kept] / "model.safetensors")
        assert json.loads((out / TRAINING_FILE).read_text()) == {"seed": 1}, "the main training's record stays"
        assert json.loads((out / stage.ALIGNMENT_FILE).read_text())["kept"] is kept
        assert (out / stage.ALIGNMENT_CURVE_FILE).read_bytes() == (second / CURVE_FILE).read_bytes()
        load_model(out)


def test_nothing_is_trained_that_could_not_be_measured(tmp_path: Path, alone: None) -> None:
    first = finished(tmp_path / "1", 1)
    found = stage.align(
        AlignConfig(enabled=True, images=6, samples=2),
        config().model,
        config().train,
        frame(0, 12, "train"),
        frame(30, 3, "dev"),
        ToyImages(),
        CUES,
        held_out=set(),
        first=first,
        work=tmp_path,
        out=tmp_path / "out",
        run_name="r",
    )
    assert found["kept"] is False
    assert "fewer than two development subjects" in found["why"]
    assert found["mined"]["answers"] == 12
    assert sha256_file(tmp_path / "out" / "model.safetensors") == sha256_file(first / "model.safetensors")
    assert not (tmp_path / "second").exists()


def test_a_picture_in_two_splits_stops_the_step_before_anything_is_mined(tmp_path: Path) -> None:
    rows = frame(0, 12, "train")
    with pytest.raises(DataError, match="both sides"):
        stage.align(
            AlignConfig(enabled=True),
            config().model,
            config().train,
            rows,
            frame(30, 6, "dev"),
            ToyImages(),
            CUES,
            held_out={rows["sample_id"].iloc[4]},
            first=tmp_path / "first",
            work=tmp_path,
            out=tmp_path / "out",
            run_name="r",
        )
    assert list(tmp_path.iterdir()) == []
