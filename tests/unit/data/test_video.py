"""Videos become images: which frames, whose face, what is thrown away, and that nothing ever crashes on a bad file."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.clips import Clip, make_clip, write_video
from benchmarks.tracking import success_auc
from ifas.core.errors import ConfigError
from ifas.core.imaging import ImageLimits, decode
from ifas.core.manifest import read_manifest
from ifas.data.media import stills
from ifas.data.pack import pack
from ifas.data.readers import RawSample, Refusal
from ifas.data.still import Still
from ifas.data.video.audit import selection_audit
from ifas.data.video.filters import FILTERS, Filter, judge, measured, motion
from ifas.data.video.plan import FramePlan
from ifas.data.video.tracker import TRACKERS, FaceTracker
from ifas.faces.boxes import Box, iou, smoothed
from ifas.faces.detector import DETECTORS, Detection, Mtcnn, detector, suppressed
from tests.unit.data.pictures import put

LIMITS = ImageLimits()
Portrait = tuple[np.ndarray, Box]


@pytest.fixture(scope="session")
def clip(portrait: Portrait) -> Clip:
    return make_clip(portrait[0], seed=3, frames=40)


@pytest.fixture(scope="session")
def video(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "face.avi", clip.frames)


def sample(path: Path, **changes: object) -> RawSample:
    made = RawSample(
        path=str(path),
        source=path.name,
        domain="replay-attack",
        subject_id="client001",
        media_id=path.stem,
        split="train",
        pai_species="live",
        container="video",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


# --- which frames --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "expected"), [(0, ()), (1, (0,)), (2, (1,)), (7, (6,)), (8, (6, 7)), (20, (6, 16)), (240, (6, 126))]
)
def test_two_frames_as_in_public_code(frames: int, expected: tuple[int, ...]) -> None:
    assert FramePlan.parse("two").wanted(frames) == expected


@given(frames=st.integers(0, 400), step=st.integers(1, 50))
def test_plans_take_frames_that_exist(frames: int, step: int) -> None:
    for text in ("two", f"every:{step}"):
        plan = FramePlan.parse(text)
        assert str(plan) == text
        wanted = plan.wanted(frames)
        assert list(wanted) == sorted(set(wanted))
        assert all(0 <= n < frames for n in wanted)
        assert bool(wanted) == bool(frames)
    assert len(wanted) == -(-frames // step)


@pytest.mark.parametrize("text", ["", "three", "every:0", "every:-1", "every:x", "two "])
def test_unknown_plans_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="every:K"):
        FramePlan.parse(text)


# --- boxes and detectors -------------------------------------------------------------------------

boxes = st.tuples(*(st.floats(0, 500) for _ in range(2)), *(st.floats(1, 300) for _ in range(2)))


@given(a=boxes, b=boxes)
def test_overlap_is_symmetric_and_one_with_itself(a: Box, b: Box) -> None:
    assert iou(a, b) == pytest.approx(iou(b, a))
    assert 0 <= iou(a, b) <= 1
    assert iou(a, a) == pytest.approx(1)
    assert iou(a, (a[0] + a[2] + 1, a[1], 5, 5)) == 0


@given(box=boxes, n=st.integers(0, 30), seed=st.integers(0, 99))
def test_smoothing_leaves_a_still_box_and_calms_a_shaking_one(box: Box, n: int, seed: int) -> None:
    assert np.allclose(smoothed([box] * n), [box] * n)
    shaking = [tuple(np.add(box, shift)) for shift in np.random.default_rng(seed).normal(0, 3, (40, 4))]
    calm = np.array(smoothed(shaking))
    assert np.abs(np.diff(calm, axis=0)).mean() < 0.7 * np.abs(np.diff(np.array(shaking), axis=0)).mean()
    assert np.abs(calm.mean(axis=0) - np.mean(shaking, axis=0)).max() < 2


def test_suppression_against_its_definition() -> None:
    rng = np.random.default_rng(0)
    found = np.column_stack([rng.uniform(0, 60, (30, 2)), np.zeros((30, 2)), rng.permutation(30) / 30])
    found[:, 2:4] = found[:, :2] + rng.uniform(10, 40, (30, 2))
    plain: list[int] = []
    for i in np.argsort(-found[:, 4]):
        x, y, right, bottom, _ = found[i]
        mine = (x, y, right - x, bottom - y)
        others = [(found[j, 0], found[j, 1], found[j, 2] - found[j, 0], found[j, 3] - found[j, 1]) for j in plain]
        if all(iou(mine, other) <= 0.4 for other in others):
            plain.append(int(i))
    assert suppressed(found, 0.4) == plain
    assert suppressed(np.zeros((0, 5)), 0.4) == []


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_find_a_face_and_nothing_in_noise(name: str, portrait: Portrait) -> None:
    picture, box = portrait
    found = detector(name).detect(picture)
    assert iou(found[0].box, box) > 0.4
    noise = np.random.default_rng(1).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    assert detector(name).detect(noise) == []
    assert detector(name).detect(np.zeros((40, 40, 3), np.uint8)) == []


def test_detection_does_not_depend_on_the_size_of_the_picture(portrait: Portrait) -> None:
    import cv2

    picture, _ = portrait
    small = Mtcnn().detect(picture)[0].box
    large = Mtcnn().detect(cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))[0].box
    assert iou(small, tuple(v / 2 for v in large)) > 0.8  # type: ignore[arg-type]


# --- tracking ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tracker", TRACKERS)
def test_tracked_boxes_are_right_with_few_looks(tracker: str, clip: Clip, portrait: Portrait) -> None:
    truth = clip.boxes(Mtcnn().detect(portrait[0])[0].box)
    follower = FaceTracker(Mtcnn(), tracker, every=10)
    seen = [follower.step(frame) for frame in clip.frames]
    overlaps = [iou(one.box, box) if one else 0.0 for one, box in zip(seen, truth, strict=True)]
    assert success_auc(overlaps) >= 0.7
    assert follower.calls * 5 <= len(clip.frames)
    assert {one.track for one in seen if one} == {0}
    # Beside every tenth frame only where a tracker says that it lost the face.
    assert {one.frame for one in seen if one and one.detected} >= set(range(0, 40, 10))


class Scripted:
    """A detector that returns given boxes, one for each call."""

    def __init__(self, answers: list[list[Detection]]) -> None:
        self.answers = answers

    def detect(self, frame: np.ndarray) -> list[Detection]:
        return self.answers.pop(0) if self.answers else []


def test_a_new_detection_overrules_a_tracked_box(clip: Clip, portrait: Portrait) -> None:
    truth = clip.boxes(portrait[1])
    elsewhere = (5.0, 5.0, 60.0, 60.0)
    follower = FaceTracker(Scripted([[Detection(truth[0], 0.9)], [Detection(elsewhere, 0.8)]]), every=5)
    seen = [follower.step(frame) for frame in clip.frames[:6]]
    assert follower.disagreed == 1
    assert seen[5] is not None
    assert seen[5].box == elsewhere
    assert (seen[4].track, seen[5].track) == (0, 1)  # type: ignore[union-attr]


def test_a_lost_face_is_looked_for_at_once(clip: Clip) -> None:
    gone = [np.zeros_like(clip.frames[0])] * 3
    follower = FaceTracker(Mtcnn(), every=1000)
    frames = [*clip.frames[:5], *gone, *clip.frames[5:15]]
    seen = [follower.step(frame) for frame in frames]
    assert follower.lost >= 1
    assert seen[6] is None
    assert seen[7] is None
    assert all(seen[n] for n in (0, 4, 14, 17))
    assert follower.calls >= 2


def test_no_face_is_no_box_and_few_looks() -> None:
    follower = FaceTracker(Mtcnn(), every=10)
    assert [follower.step(np.full((90, 120, 3), 90, np.uint8)) for _ in range(30)] == [None] * 30
    assert follower.calls <= 8


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ConfigError, match="medianflow"):
        FaceTracker(Mtcnn(), "nano")
    with pytest.raises(ConfigError, match="lbp, mtcnn"):
        detector("haar")


# --- filters -------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", FILTERS, ids=lambda f: f.name)
def test_intervals_hold_their_ends(one: Filter) -> None:
    for value, inside in (
        (one.low, True),
        (one.high, True),
        (one.low - 1e-6, False),
        (one.high + 1e-6, one.high == np.inf),
    ):
        assert one.passes({one.measure: value}) is inside


GOOD = {"seconds": 4.0, "faces": 1.0, "face_pixels": 120.0, "luminance": 110.0, "sharpness": 300.0, "motion": 0.01}


def test_validity_rejects_and_quality_tags() -> None:
    assert judge(GOOD) == (None, {})
    for one in FILTERS:
        rejected, tags = judge({**GOOD, one.measure: one.low - 1e-4})
        if one.mode == "reject":
            assert rejected is one
        else:
            assert (rejected, tags) == (None, {f"tag_{one.name}": 1.0})
    first, _ = judge({**GOOD, "seconds": 0, "luminance": 0})
    assert first is not None
    assert first.name == "duration"


def test_measurements_of_a_known_face() -> None:
    frame = np.zeros((100, 100, 3), np.uint8)
    frame[20:60, 30:90] = 200
    values = measured(frame, (30, 20, 60, 40))
    assert (values["luminance"], values["sharpness"], values["face_pixels"]) == (200, 0, 40)
    assert measured(frame, None)["face_pixels"] == 100
    assert motion([(0, 0, 10, 10), (1, 0, 10, 10), (2, 0, 10, 10)]) == pytest.approx(0.1)
    assert motion([(0, 0, 10, 10)]) == 0


def refusals(stage: str, species: str, n: int) -> list[Refusal]:
    return [Refusal(f"{stage}{i}", "", stage, species, "d") for i in range(n)]


def test_a_filter_that_throws_away_attacks_first_is_flagged() -> None:
    kept = {("live", "d"): 400, ("print.a4", "d"): 340, ("replay", "d"): 395}
    audit = selection_audit(refusals("blur", "print.a4", 60) + refusals("blur", "live", 4), kept)
    assert any("throws away attacks first" in flag for flag in audit["flags"])
    assert any("print.a4" in flag for flag in audit["flags"])
    table = audit["stages"]["blur"]
    assert table["species"]["print.a4"]["rate"] == pytest.approx(0.15)
    assert table["class"]["live"]["rejected"] == 4
    low, high = table["species"]["print.a4"]["interval"]
    assert low < 0.15 < high


@pytest.mark.parametrize("species", ["live", "print.a4"])
def test_a_neutral_filter_is_not_flagged(species: str) -> None:
    kept = {("live", "d"): 400, ("print.a4", "d"): 400}
    assert selection_audit(refusals("dark", "live", 8) + refusals("dark", "print.a4", 9), kept)["flags"] == []
    # One image lost is no evidence, whatever share it is; nor is losing bona fide unfair to attacks.
    assert selection_audit(refusals("dark", species, 1), {**kept, (species, "d"): 5})["flags"] == []
    assert selection_audit([], kept) == {"stages": {}, "flags": []}


# --- from files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "codec"), [("avi", "mpeg4"), ("mp4", "mpeg4"), ("mov", "mjpeg")])
def test_a_video_gives_its_frames(clip: Clip, portrait: Portrait, tmp_path: Path, ending: str, codec: str) -> None:
    path = write_video(tmp_path / f"v.{ending}", clip.frames)
    found = list(stills(sample(path), LIMITS, FramePlan.parse("two")))
    assert [one.sample.frame_index for one in found if isinstance(one, Still)] == [6, 26]
    truth = clip.boxes(Mtcnn().detect(portrait[0])[0].box)
    for one in found:
        assert isinstance(one, Still)
        assert (one.sample.container, one.sample.track_id) == ("image", "0")
        assert one.sample.source == f"v.{ending}#{one.sample.frame_index}"
        assert one.sample.face_box is not None
        assert iou(one.sample.face_box, truth[one.sample.frame_index or 0]) > 0.7
        assert decode(one.data).shape == clip.frames[0].shape
        quality = one.sample.quality or {}
        assert quality["seconds"] == pytest.approx(1.6)
        assert quality["score"] > 0.7
        assert np.abs(decode(one.data).astype(int) - clip.frames[one.sample.frame_index or 0]).mean() < 12


def test_every_k_frames_and_the_same_bytes_again(video: Path) -> None:
    plan = FramePlan.parse("every:12")
    found = list(stills(sample(video), LIMITS, plan))
    assert [one.sample.frame_index for one in found if isinstance(one, Still)] == [0, 12, 24, 36]
    assert list(stills(sample(video), LIMITS, plan)) == found


def test_frames_without_a_face_are_refused_by_stage(tmp_path: Path) -> None:
    dark = write_video(tmp_path / "dark.avi", [np.zeros((120, 160, 3), np.uint8)] * 20)
    found = list(stills(sample(dark), LIMITS, FramePlan()))
    assert [(one.source, one.stage) for one in found if isinstance(one, Refusal)] == [
        ("dark.avi#6", "face"),
        ("dark.avi#16", "face"),
    ]
    brief = write_video(tmp_path / "brief.avi", [np.zeros((120, 160, 3), np.uint8)] * 4)
    assert [one.stage for one in stills(sample(brief), LIMITS, FramePlan()) if isinstance(one, Refusal)] == ["duration"]


def hdf5(path: Path, frames: int = 12, shape: tuple[int, ...] = (3, 64, 64)) -> Path:
    with h5py.File(path, "w") as file:
        for k in range(frames):
            values = np.full(shape, 10 * k, np.uint8)
            file.create_group(f"Frame_{k}").create_dataset("array", data=values)
    return path


def test_hdf5_frames_in_numeric_order(tmp_path: Path) -> None:
    for shape in ((3, 64, 64), (4, 64, 64)):
        path = hdf5(tmp_path / f"{shape[0]}.hdf5", shape=shape)
        found = list(stills(sample(path, container="hdf5"), LIMITS, FramePlan.parse("every:11")))
        means = [decode(one.data).mean() if isinstance(one, Still) else one for one in found]
        # Frame 0 is too dark; frame 11 comes after frame 9, not after frame 1.
        assert isinstance(means[0], Refusal)
        assert means[0].stage == "luminance"
        assert means[1] == 110
        last = found[1]
        assert isinstance(last, Still)
        assert last.sample.face_box == (0, 0, 64, 64)


def broken(video: Path, tmp_path: Path) -> dict[str, Path]:
    data = video.read_bytes()
    return {
        "empty": put(tmp_path / "empty.avi", b""),
        "text": put(tmp_path / "text.avi", b"not a video" * 50),
        "header only": put(tmp_path / "cut.avi", data[:2000]),
        "hdf5 text": put(tmp_path / "text.hdf5", b"not hdf5" * 50),
        "hdf5 cut": put(tmp_path / "cut.hdf5", hdf5(tmp_path / "whole.hdf5").read_bytes()[:900]),
        "hdf5 other": hdf5(tmp_path / "other.hdf5", shape=(2, 64, 64)),
        "gone": tmp_path / "gone.avi",
    }


def test_bad_files_are_one_refusal_each(video: Path, tmp_path: Path) -> None:
    for what, path in broken(video, tmp_path).items():
        container = "hdf5" if path.suffix == ".hdf5" else "video"
        found = list(stills(sample(path, container=container), LIMITS, FramePlan()))
        assert [type(one) for one in found] == [Refusal], what
        assert found[0].reason, what  # type: ignore[union-attr]


def test_a_cut_video_gives_what_is_whole(video: Path, tmp_path: Path) -> None:
    data = video.read_bytes()
    path = put(tmp_path / "half.avi", data[: len(data) // 2])
    found = list(stills(sample(path), LIMITS, FramePlan()))
    assert found
    assert all(isinstance(one, Still) for one in found)


def test_limits_hold_for_videos(video: Path) -> None:
    small = ImageLimits(max_pixels=640 * 480 - 1)
    (found,) = stills(sample(video), small, FramePlan())
    assert isinstance(found, Refusal)
    assert "pixels" in found.reason


@settings(max_examples=40)
@given(data=st.data())
def test_damaged_bytes_never_crash(data: st.DataObject, video: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    kind = data.draw(st.sampled_from(["video", "hdf5"]))
    whole = bytearray(video.read_bytes()[:60_000] if kind == "video" else hdf5(folder / "x.hdf5", 2).read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, min(len(whole) - 1, 6000)))
        whole[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    path = put(folder / f"d.{'avi' if kind == 'video' else 'hdf5'}", bytes(whole))
    for one in stills(sample(path, container=kind), LIMITS, FramePlan()):
        assert isinstance(one, Still | Refusal)
        if isinstance(one, Refusal):
            assert one.reason


def test_an_unknown_codec_is_a_refusal(video: Path, tmp_path: Path) -> None:
    damaged = bytearray(video.read_bytes())
    damaged[185:189] = bytes(4)  # within the codec's four letters
    (found,) = stills(sample(put(tmp_path / "d.avi", bytes(damaged))), LIMITS, FramePlan())
    assert isinstance(found, Refusal)
    assert "codec" in found.reason


def test_packing_a_video_dataset(clip: Clip, tmp_path: Path) -> None:
    """From the official layout to rows with media, track, frame, box and quality; rejections are counted per class."""
    root = tmp_path / "Replay"
    blank = [np.full((120, 160, 3), 90, np.uint8)] * 12
    write_video(root / "train/real/client001_session01_webcam_authenticate_controlled_1.mov", clip.frames)
    write_video(
        root / "train/attack/fixed/attack_print_client002_session01_highdef_photo_adverse.mov", clip.frames[:20][::-1]
    )
    write_video(root / "test/attack/hand/attack_mobile_client009_session01_mobile_video_controlled.mov", blank)
    report = pack("replay-attack", root, tmp_path / "out", name="replay-attack")
    rows = read_manifest(tmp_path / "out")
    assert (report.rows, len(rows)) == (4, 4)
    assert Counter(rows["media_id"]).most_common()[0][1] == 2
    assert sorted(rows["frame_index"]) == [6, 6, 16, 26]
    assert set(rows["track_id"]) == {"0"}
    assert rows["face_box"].map(len).eq(4).all()
    assert [r.stage for r in report.refused] == ["face", "face"]
    assert {(r.pai_species, r.domain) for r in report.refused} == {("replay.phone", "replay-attack")}

    audit = json.loads((tmp_path / "out" / "dataset.json").read_text())["selection_audit"]
    assert audit["stages"]["face"]["species"]["replay.phone"] == {
        "rejected": 2,
        "n": 2,
        "rate": 1.0,
        "interval": audit["stages"]["face"]["species"]["replay.phone"]["interval"],
    }
    assert json.loads(rows["quality"].iloc[0])["luminance"] > 10
