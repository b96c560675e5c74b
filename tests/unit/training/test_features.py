"""Features of a frozen tower: computed once, shared, checked, and the training is the same as without them."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from ranks import train as train_ranks
from test_loop import killed_after, trained, weights
from toy_training import config, job, manifest

from ifas.core.errors import ConfigError, TrainingNeedsSpace
from ifas.model.build import build
from ifas.model.towers import ClipTower
from ifas.steps.code import code_of
from ifas.training import ahead
from ifas.training.batches import Batches
from ifas.training.curve import CURVE_FILE, read
from ifas.training.features import CODE
from ifas.training.job import FINAL, STARTS_FILE, Job, fingerprint, rows_of

pytestmark = pytest.mark.usefixtures("alone")

#: 12 steps of 6 draw each of the 18 images 4 times.
FROZEN = ("model.vision.tune=frozen", "train.steps=12", "train.batch=6", "train.versions=2")
KEPT = (*FROZEN, "train.features=true")
VIEWS = 2


def losses(made: Job) -> list[float]:
    return [line["loss"] for line in read(made.run / CURVE_FILE)]


def files(made: Job) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(made.features.rglob("*")) if path.is_file()}


@pytest.fixture
def images_seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each pass of the tower, views of one face apart."""
    seen: list[int] = []
    forward = ClipTower.forward

    def counted(self: ClipTower, pixel_values: torch.Tensor) -> object:
        seen.append(len(pixel_values))
        return forward(self, pixel_values)

    monkeypatch.setattr(ClipTower, "forward", counted)
    return seen


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, alone: None) -> Job:
    """A run with kept features."""
    made = job(tmp_path_factory.mktemp("kept") / "work" / "run", *KEPT)
    trained(made)
    return made


def beside(kept: Job, tmp_path: Path, *settings: str) -> Job:
    """Another job that finds the features of `kept`, which stay as they are."""
    made = job(tmp_path / "work" / f"with {' '.join(settings)}", *KEPT, *settings)
    if not made.features.exists():
        for path, content in files(kept).items():
            copy = made.features / path.relative_to(kept.features)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
    return made


@pytest.mark.parametrize("redraw_after", [0, 2])
def test_the_losses_are_those_of_the_run_without(tmp_path: Path, redraw_after: int, images_seen: list[int]) -> None:
    settings = (*FROZEN, f"train.redraw_after={redraw_after}")
    plain = job(tmp_path / "plain" / "run", *settings)
    trained(plain)
    # Every draw for its step, and before the first versions for the scale of the levels.
    firsts = sum(images_seen) - 12 * 6 * VIEWS
    assert firsts == len(list(Batches(plain, build(plain.model)[1], 0).first_versions())) * VIEWS
    images_seen.clear()
    cached = job(tmp_path / "cached" / "run", *settings, "train.features=true")
    trained(cached)
    assert losses(cached) == pytest.approx(losses(plain), rel=1e-5)
    # Two versions of each image; with `redraw_after`, the second pair takes the place of the first.
    assert sum(images_seen) == 18 * VIEWS * (2 if not redraw_after else 4)
    assert len(files(cached)) == 36
    other = job(tmp_path / "other" / "run", *FROZEN, "train.versions=3")
    trained(other)
    assert losses(other) != pytest.approx(losses(plain), rel=2e-5), "other views would not be noticed"


def test_images_as_they_are_have_one_version(tmp_path: Path, images_seen: list[int]) -> None:
    bare = ("model.vision.tune=frozen", "train.steps=8", "train.batch=6", "train.augment=false")
    plain, cached = job(tmp_path / "p" / "run", *bare), job(tmp_path / "c" / "run", *bare, "train.features=true")
    trained(plain)
    images_seen.clear()
    trained(cached)
    assert losses(cached) == pytest.approx(losses(plain), rel=1e-5)
    assert sum(images_seen) == 18 * VIEWS


def test_questions_of_alignment_share_the_features_of_their_image(tmp_path: Path, images_seen: list[int]) -> None:
    """Rows, draws and base model as in the second stage."""
    rows = rows_of(manifest(6))
    asked = tuple(row._replace(question="Is this a screen?", weight=3.0, judged=False) for row in rows[:3])
    settings = ("train.steps=6", "train.balance=false", "train.domain_balance=true")
    first = job(tmp_path / "first" / "run", *FROZEN, "train.steps=1", rows=rows)
    trained(first)
    base = str(first.run / FINAL)
    made = [
        dataclasses.replace(job(tmp_path / name / "run", *kind, *settings, rows=rows + asked), base=base)
        for name, kind in (("plain", FROZEN), ("cached", KEPT))
    ]
    trained(made[0])
    images_seen.clear()
    trained(made[1])
    assert losses(made[1]) == pytest.approx(losses(made[0]), rel=1e-5)
    assert sum(images_seen) == len(files(made[1])) * VIEWS <= 6 * 2 * VIEWS


def test_bf16_features_are_kept_as_such(tmp_path: Path) -> None:
    settings = ("train.precision=bf16", "train.zero_stage=1", "train.steps=6")
    plain, cached = job(tmp_path / "p" / "run", *FROZEN, *settings), job(tmp_path / "c" / "run", *KEPT, *settings)
    trained(plain)
    trained(cached)
    assert losses(cached) == pytest.approx(losses(plain), rel=5e-3)
    # 3 layers of class tokens and 16 patches, of 2 views, 32 wide, 2 bytes each.
    assert {len(content) - 16 for content in files(cached).values()} == {VIEWS * (3 + 16) * 32 * 2}


def test_a_resumed_run_is_the_same_to_the_bit(kept: Job, tmp_path: Path) -> None:
    again = job(tmp_path / "again" / "run", *KEPT)
    killed_after(again, 6)
    trained(again)
    assert losses(again) == losses(kept)
    assert weights(again) == weights(kept)


def test_another_run_with_the_same_tower_finds_them(kept: Job, tmp_path: Path, images_seen: list[int]) -> None:
    again = beside(kept, tmp_path)
    trained(again)
    assert losses(again) == losses(kept)
    assert images_seen == []
    trained(beside(kept, tmp_path, "model.connector.width=16", "train.schedule=one-cycle", "train.batch=3"))
    assert images_seen == []


@pytest.mark.parametrize(
    "setting",
    [
        "train.seed=1",
        "train.augment=false",
        "model.face_margin=1.5",
        "model.views=[face]",
        "model.vision.shape.num_attention_heads=4",
        "model.vision.image_size=32",
    ],
)
def test_what_decides_the_features_is_in_their_name(kept: Job, tmp_path: Path, setting: str) -> None:
    made = beside(kept, tmp_path, setting, "train.steps=1")
    assert present(made) == 0


def test_other_weights_of_the_tower_have_other_features(kept: Job, tmp_path: Path) -> None:
    made = beside(kept, tmp_path, "train.steps=1")
    assert present(made) == 6
    assert present(made, shift=1e-6) == 0


def present(made: Job, shift: float = 0.0) -> int:
    """How many of the features of a job's training are there; `shift` is added to one of the tower's weights."""
    model, processor = build(made.model, seed=made.train.seed)
    with torch.no_grad():
        next(model.vision.parameters()).view(-1)[0].add_(shift)
    batches = Batches(made, processor, 0, model=model)
    assert batches.features is not None
    return sum(batches.features.has(*pair) for pair in batches.first_versions())


def test_the_code_that_decides_the_features_is_in_their_name() -> None:
    """A module that these import is new: does it decide what the tower sees? Then it goes into `CODE`, else here."""
    elsewhere = {f"core/{name}.py" for name in ("config", "errors", "files", "taxonomy")}
    # The box that was found is in the name itself.
    elsewhere |= {f"faces/{name}.py" for name in ("boxes", "detector", "finder")}
    elsewhere |= {f"model/{name}.py" for name in ("connector", "loss", "verdict", "whole_clauses")}
    imported = {file for module in CODE for file in code_of(module.__name__).files if not file.endswith("__init__.py")}
    named = {module.__name__.removeprefix("ifas.").replace(".", "/") + ".py" for module in CODE}
    assert named <= imported
    assert imported - elsewhere - {"py.typed"} == named


def test_a_damaged_file_is_made_again(kept: Job, tmp_path: Path, images_seen: list[int]) -> None:
    again = beside(kept, tmp_path)
    whole = files(again)
    cut, flipped, empty, gone, *_ = whole
    cut.write_bytes(whole[cut][:-4])
    flipped.write_bytes(whole[flipped][:100] + bytes([whole[flipped][100] ^ 1]) + whole[flipped][101:])
    empty.write_bytes(b"")
    gone.unlink()
    trained(again)
    assert sum(images_seen) == 4 * VIEWS
    assert losses(again) == pytest.approx(losses(kept), rel=1e-5)
    assert list(files(again)) == list(whole)
    for path, content in files(again).items():
        assert len(content) == len(whole[path])
        if path not in (cut, flipped, empty, gone):
            assert content == whole[path]


def test_many_at_once_leave_whole_files(kept: Job, tmp_path: Path) -> None:
    made = job(tmp_path / "work" / "run", *KEPT)
    model, processor = build(made.model)
    batches = [Batches(made, processor, 0, model=model.eval()) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        rows = [micro.inputs["features"] for micro in threads.map(lambda one: one.micro(0, 0), batches)]
    for row_BF in rows:
        torch.testing.assert_close(row_BF, rows[0])
    again = Batches(made, processor, 0, model=model)
    torch.testing.assert_close(again.micro(0, 0).inputs["features"], rows[0])
    assert again.features is not None
    assert again.features.computed == 0
    assert len(files(made)) == 6


def test_no_space_is_said_before_anything_is_written(tmp_path: Path) -> None:
    made = job(tmp_path / "work" / "run", *KEPT)
    model, processor = build(made.model)
    batches = Batches(made, processor, 0, model=model.eval())
    assert batches.features is not None
    size = VIEWS * (3 + 16) * 32 * 4 + 16
    batches.features.free = lambda _: 36 * size - 1
    with pytest.raises(TrainingNeedsSpace, match=r"no space for the tower's features .* 0\.2 MiB are needed"):
        batches.micro(0, 0)
    assert files(made) == {}
    batches.features.free = lambda _: 36 * size
    batches.micro(0, 0)
    assert len(files(made)) == 6


def test_the_driver_computes_while_the_ranks_start(kept: Job, tmp_path: Path, images_seen: list[int]) -> None:
    made = job(tmp_path / "work" / "run", *KEPT)
    with ahead.computed_ahead(made):
        ahead.wait(made)
        assert sum(images_seen) == 36 * VIEWS
        images_seen.clear()
        trained(made)
    assert images_seen == []
    assert losses(made) == pytest.approx(losses(kept), rel=1e-5)
    assert (made.run / STARTS_FILE).exists()
    with ahead.computed_ahead(made):  # a later start leaves it to the ranks
        for path in files(made):
            path.unlink()
        ahead.wait(made)
    assert images_seen == []


def test_a_block_that_ends_at_once_stops_the_thread(tmp_path: Path) -> None:
    made = job(tmp_path / "work" / "run", *KEPT)
    with pytest.raises(KeyError), ahead.computed_ahead(made):
        raise KeyError
    ahead.wait(made)
    assert len(files(made)) < 36


@pytest.mark.slow
def test_two_ranks_share_the_work(kept: Job, tmp_path: Path) -> None:
    made = job(tmp_path / "work" / "run", *KEPT, "train.workers=2", "train.batch=3")
    assert train_ranks(made, 2) == [0, 0]
    assert losses(made) == pytest.approx(losses(kept), rel=1e-4)
    assert [path.relative_to(made.features) for path in files(made)] == [
        path.relative_to(kept.features) for path in files(kept)
    ]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (("train.features=true", "train.versions=2"), "model.vision.tune=frozen"),
        (("train.features=true", "model.vision.tune=frozen"), "train.versions=N or train.augment=false"),
        ((*KEPT, "train.zero_stage=3"), "train.zero_stage 0, 1 or 2"),
    ],
)
def test_settings_that_can_not_be(settings: tuple[str, ...], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        config(*settings)


def test_they_are_no_part_of_what_is_computed() -> None:
    rows = rows_of(manifest())
    plain, kept, other = (config(*settings) for settings in (FROZEN, KEPT, (*FROZEN, "train.versions=3")))
    mark = fingerprint(plain.model, plain.train, rows)
    assert mark == fingerprint(kept.model, kept.train, rows)
    assert mark != fingerprint(other.model, other.train, rows)


def test_a_second_box_or_image_has_features_of_its_own(kept: Job) -> None:
    model, processor = build(kept.model)
    batches = Batches(kept, processor, 0, model=model.eval())
    assert batches.features is not None
    row, shown = next(batches.first_versions())
    assert batches.features.has(row, shown)
    assert not batches.features.has(row._replace(box=(1.0, 2.0, 30.0, 40.0)), shown)
    assert not batches.features.has(row._replace(sample_id="f" * 64), shown)
    assert batches.features.has(row._replace(question="Is it night?", caption="No."), shown)
    assert dataclasses.replace(kept, run=kept.run.with_name("another")).features == kept.features
