"""Scores, then calibration and a threshold, both frozen, then explanations: the table that `predictions.parquet` holds.

An explanation is written for a verdict, a verdict needs the threshold, and the threshold needs the scores of all
development images. So the images are read twice: for scores, then for explanations.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ifas.core.claims import Cues, Known, claimed, measured, sure_of
from ifas.core.config import EvaluateConfig, ProtocolConfig
from ifas.core.errors import DataError, FaceRefused, ImageRefused, unknown_key
from ifas.core.imaging import decode
from ifas.core.manifest import ImageSource
from ifas.core.prefetch import prefetch
from ifas.core.progress import Progress, emit
from ifas.core.release_status import RELEASED
from ifas.evaluation import gallery, modes, robustness
from ifas.evaluation.calibration import calibrated
from ifas.evaluation.threshold import freeze
from ifas.evaluation.tracks import one_per_track
from ifas.faces.boxes import Box
from ifas.faces.face import Face
from ifas.faces.handling import STORED, handling, stored

if TYPE_CHECKING:
    import pandas as pd

#: Columns taken over from the manifest.
CARRIED = (
    "sample_id",
    "dataset",
    "domain",
    "split",
    "subject_id",
    "media_id",
    "track_id",
    "label",
    "spoof_type",
    "pai_species",
    "device",
    "illumination",
    "synthetic",
    "batch",
    "status",
)

#: Columns of an explained image: the text; the spoof type that the answer names (`live` where it accepts) and how sure
#: of it the model is; JSON lists of the cues that the text claims and of those that specialists measured.
EXPLANATION = ("explanation", "spoof_type_named", "spoof_type_confidence", "cues_claimed", "cues_measured")
#: Columns of predictions.parquet. `raw_score` is the model's own, `score` the calibrated one, which is judged.
#: `refused` says why an image has no score, `refused_reason` names the kind of refusal, as the service does.
PREDICTION_COLUMNS = (*CARRIED, "raw_score", "score", "refused", "refused_reason", "verdict", *EXPLANATION)


class Explained(Protocol):
    """An answer as evaluation needs it."""

    @property
    def text(self) -> str: ...
    @property
    def spoof_type(self) -> str: ...
    @property
    def confidence(self) -> float | None: ...


class JudgeLike(Protocol):
    """The model as evaluation needs it."""

    def find(self, picture: npt.NDArray[np.uint8]) -> Face:
        """The face of an image. Raises FaceRefused where there is none that can be judged."""
        ...

    def judge(self, faces: Sequence[Face]) -> npt.NDArray[Any]:
        """p(bona fide) of each face: (B,)."""
        ...

    def explain(self, faces: Sequence[Face], verdicts: Sequence[bool]) -> Sequence[Explained]:
        """The attack and interpretation of each face, given whether it was accepted as live."""
        ...


class Pooling(JudgeLike, Protocol):
    """A judge whose tower's features can be had."""

    def pooled(self, faces: Sequence[Face]) -> npt.NDArray[np.float32]:
        """One row for each face: (B, F)."""
        ...


def _all(test: pd.DataFrame, _threshold: float, _config: EvaluateConfig) -> list[int]:
    return list(test.index)


def _gallery(test: pd.DataFrame, threshold: float, config: EvaluateConfig) -> list[int]:
    return sorted(i for group in gallery.choose(test, threshold, config.gallery).values() for i in group)


def _none(_test: pd.DataFrame, _threshold: float, _config: EvaluateConfig) -> list[int]:
    return []


#: `evaluate.explain` -> which test rows get an explanation.
EXPLAINED: dict[str, Callable[[pd.DataFrame, float, EvaluateConfig], list[int]]] = {
    "all": _all,
    "gallery": _gallery,
    "none": _none,
}


@dataclass(frozen=True)
class Predicted:
    """The table, and the images that gave no score (sample_id, domain, why).

    `frame` has the columns `PREDICTION_COLUMNS`, and one row for each dev or test row of the manifest and each row in
    quarantine or of a canary set. `verdict` (nullable boolean) is true where the image was accepted as live at the
    threshold frozen on source development data; `explanation` is null where none was asked for. Images that can't be
    decoded, or have no face that can be judged, stay in the table without a score. `handled` has the columns
    `robustness.COLUMNS`, and `asked` those of `modes`.
    """

    frame: pd.DataFrame
    handled: pd.DataFrame
    asked: pd.DataFrame
    non_responses: tuple[dict[str, str], ...]


def predict(
    judge: JudgeLike,
    manifest: pd.DataFrame,
    images: ImageSource,
    protocol: ProtocolConfig,
    config: EvaluateConfig,
    cues: Cues = MappingProxyType({}),
) -> Predicted:
    """Scores dev and test rows and batches that are not released, freezes calibration and threshold, explains what is
    judged.

    Args:
        manifest: of a dataset. What specialists measured is read from its column `evidence`, where it has one.
        cues: what specialists measure, by name, to find what explanations claim.

    Raises:
        ConfigError: an empty protocol or an unknown `explain`.
        DataError: no dev or test rows, no readable image, development data missing, or a score that is no probability.
        CorruptShardError: a shard was altered (this is not one bad image: the run stops).
    """
    if config.explain not in EXPLAINED:
        raise unknown_key("value of evaluate.explain", config.explain, EXPLAINED)
    rows = manifest[manifest["split"].isin(["dev", "test"]) | (manifest["status"] != RELEASED)]
    rows = rows.sort_values(["shard", "row"], kind="stable").reset_index(drop=True)
    if rows.empty:
        raise DataError("the manifest has no dev or test rows", "split the dataset by subject into train, dev and test")
    frame = rows[list(CARRIED)].copy()
    faces = _Faces(judge, rows, images)
    frame["raw_score"] = _score(judge, faces, config.batch)
    frame["refused"], frame["refused_reason"] = faces.column("what"), faces.column("reason")
    if len(faces.refused) == len(frame):
        raise DataError(
            f"none of the {len(frame)} images can be judged: {faces.refused[0].what}",
            "look at the images and at model.faces, or fetch the dataset again",
        )
    frame, fitted = calibrated(frame, protocol, config)
    scaled = fitted.calibration.apply if fitted else np.asarray
    own = frame.assign(score=scaled(frame["raw_score"].to_numpy(dtype="float64")))
    threshold = freeze(frame, protocol, config).value
    handled = _handled(judge, rows, images, own, scaled, protocol, config)
    frame["verdict"] = (frame["score"] >= threshold).astype("boolean").mask(frame["score"].isna())
    in_protocol = (frame["split"] == "test") & frame["domain"].isin(protocol.source_domains + protocol.target_domains)
    judged = frame[(in_protocol | (frame["status"] != RELEASED)) & frame["score"].notna()]
    chosen = EXPLAINED[config.explain](judged, threshold, config)
    answers = _explain(judge, faces, chosen, frame["verdict"], config.batch)
    frame[list(EXPLANATION)] = [_explanation(answers.get(i), row, cues) for i, row in rows.iterrows()]
    frame["spoof_type_confidence"] = frame["spoof_type_confidence"].astype("float64")
    non_responses = tuple(
        {"sample_id": str(frame.at[i, "sample_id"]), "domain": str(frame.at[i, "domain"]), "why": why.what}
        for i, why in sorted(faces.refused.items())
    )
    asked = _asked(judge, faces, modes.chosen(frame, protocol, config), config.batch)
    return Predicted(frame[list(PREDICTION_COLUMNS)], handled, asked, non_responses)


def rescore(
    judge: JudgeLike, predicted: pd.DataFrame, manifest: pd.DataFrame, images: ImageSource, batch: int
) -> pd.DataFrame:
    """The test images that one model judged, judged by another: the same table, with the other's raw scores.

    Args:
        judge: the other model. It finds faces itself, so it may refuse other images.
        predicted: what `predict` returned; only its released test rows are judged.
        manifest: of the same dataset.

    Returns:
        Those rows with `raw_score`, `refused` and `refused_reason` of the other model; nothing else of it is known.
    """
    wanted = predicted[(predicted["split"] == "test") & (predicted["status"] == RELEASED)]
    places = manifest.drop_duplicates("sample_id").set_index("sample_id")
    rows = places.loc[wanted["sample_id"]].reset_index()
    faces = _Faces(judge, rows, images)
    found = wanted[list(CARRIED)].assign(raw_score=_score(judge, faces, batch, of="champion"))
    return found.assign(refused=faces.column("what"), refused_reason=faces.column("reason"))


def pooled(judge: Pooling, rows: pd.DataFrame, images: ImageSource, batch: int) -> npt.NDArray[np.float32]:
    """Features of the frozen tower of each row, (N, F); NaN where an image is refused.

    Raises:
        DataError: no image can be judged.
    """
    faces = _Faces(judge, rows, images)
    found: npt.NDArray[np.float32] | None = None
    progress = Progress("evaluate", len(rows), unit="features")
    for positions, some in prefetch(faces.batches(range(len(rows)), batch)):
        if positions:
            features = judge.pooled(some)
            if found is None:
                found = np.full((len(rows), features.shape[1]), np.nan, dtype=np.float32)
            found[positions] = features
        progress.advance(min(batch, len(rows) - progress.done))
    if found is None:
        raise DataError(f"none of the {len(rows)} images can be judged", "look at the images and at model.faces")
    return found


def _handled(
    judge: JudgeLike,
    rows: pd.DataFrame,
    images: ImageSource,
    frame: pd.DataFrame,
    scaled: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    protocol: ProtocolConfig,
    config: EvaluateConfig,
) -> pd.DataFrame:
    """Some test images judged again after each handling: rows of `robustness.COLUMNS`.

    Args:
        frame: of `rows`, each with its own score.
        scaled: makes scores of the model's raw ones, as for `frame`.
    """
    import pandas as pd

    voters = frame if config.unit == "image" else one_per_track(frame)
    chosen = robustness.chosen(voters, protocol, config)
    names = config.robustness.handlings if chosen else ()
    tables = []
    for name in names:
        faces = _Faces(judge, rows.iloc[chosen], images, name)
        scores = scaled(_score(judge, faces, config.batch))
        table = frame.iloc[chosen][["sample_id"]].assign(handling=name, before=frame["score"].iloc[chosen])
        why = {"refused": faces.column("what"), "refused_reason": faces.column("reason")}
        tables.append(table.assign(score=scores, **why))
    if not tables:
        return pd.DataFrame(columns=list(robustness.COLUMNS))
    return pd.concat(tables, ignore_index=True)


class _Faces:
    """The faces of rows, found exactly as the service finds them; `refused` holds why a row has none.

    Args:
        handled: name of a handling; empty: the images as they are. A handled image is stored without loss and read
            again, and its face is found again, so that it passes all that an image as it is passes.
    """

    def __init__(self, judge: JudgeLike, rows: pd.DataFrame, images: ImageSource, handled: str = "") -> None:
        self.judge, self.rows, self.images, self.handled = judge, rows, images, handled
        self.boxes: dict[int, Box] = {}
        self.refused: dict[int, ImageRefused] = {}

    def batches(self, chosen: Sequence[int], batch: int) -> Iterator[tuple[list[int], list[Face]]]:
        """(positions, faces) of those of each `batch` of `chosen` that can be judged."""
        for start in range(0, len(chosen), batch):
            found = [(i, face) for i in chosen[start : start + batch] if (face := self._face(i)) is not None]
            yield [i for i, _ in found], [face for _, face in found]

    def column(self, name: str) -> list[str | None]:
        """`what` or `reason` of the refusal of each row."""
        return [getattr(self.refused.get(i), name, None) for i in range(len(self.rows))]

    def _face(self, i: int) -> Face | None:
        row = self.rows.iloc[i]
        try:
            picture = decode(self.images.read(str(row["shard"]), int(row["row"])))
            if self.handled:
                picture = decode(stored(handling(self.handled)(Face.whole(picture)).picture), STORED)
            face = Face(picture, self.boxes[i]) if i in self.boxes else self.judge.find(picture)
        except ImageRefused as error:
            self.refused[i] = error
            return None
        # An image is read for its score and again for its explanation; its face is found once.
        self.boxes[i] = face.box
        return face


def _score(judge: JudgeLike, faces: _Faces, batch: int, of: str = "") -> npt.NDArray[np.float64]:
    """The model's own scores, NaN where refused. `of`: whose they are, for people who wait."""
    rows, handled, refused = faces.rows, of or faces.handled, faces.refused
    scores = np.full(len(rows), np.nan)
    progress = Progress("evaluate", len(rows), unit=f"scores, {handled}" if handled else "scores")
    for positions, found in prefetch(faces.batches(range(len(rows)), batch)):
        if positions:
            given = np.asarray(judge.judge(found), dtype=np.float64)
            if given.shape != (len(positions),) or not ((given >= 0) & (given <= 1)).all():
                ids = ", ".join(str(s)[:12] for s in rows["sample_id"].iloc[positions])
                raise DataError(
                    f"the model gave no probability for every image of a batch (samples {ids})",
                    "look at the training record for NaN losses, then train again",
                )
            scores[positions] = given
        progress.advance(min(batch, len(rows) - progress.done))
    for i, why in refused.items():
        if not handled:
            kind = "not judged" if isinstance(why, FaceRefused) else "not readable"
            emit("note", "evaluate", text=f"{kind}, left out: {str(rows['sample_id'].iloc[i])[:12]}: {why.what}")
    if handled and refused:
        first = next(iter(refused.values())).what
        where = f"by the {of}" if of else f"after the handling {handled}"
        text = f"{len(refused)} of {len(rows)} images gave no score {where}; the first: {first}"
        emit("note", "evaluate", text=text)
    return scores


def _explain(
    judge: JudgeLike, faces: _Faces, chosen: list[int], verdicts: pd.Series, batch: int
) -> dict[int, Explained]:
    answers: dict[int, Explained] = {}
    progress = Progress("evaluate", len(chosen), unit="explanations")
    for positions, found in prefetch(faces.batches(chosen, batch)):
        given = judge.explain(found, [bool(verdicts.iloc[i]) for i in positions])
        answers.update(zip(positions, given, strict=True))
        progress.advance(len(positions))
    return answers


def _asked(judge: Any, faces: _Faces, chosen: list[int], batch: int) -> pd.DataFrame:
    """Rows of `modes.COLUMNS` of some images."""
    import pandas as pd

    table: list[tuple[Any, ...]] = []
    if chosen:
        progress = Progress("evaluate", len(chosen), unit="images asked in other ways")
        for positions, found in prefetch(faces.batches(chosen, batch)):
            ids = faces.rows["sample_id"].iloc[positions]
            table += [(sample, *one) for sample, one in zip(ids, modes.asked(judge, found), strict=True)]
            progress.advance(len(positions))
    return pd.DataFrame(table, columns=list(modes.COLUMNS))


def _explanation(answer: Explained | None, row: pd.Series, cues: Cues) -> tuple[Any, ...]:
    """The values of `EXPLANATION`; those that nobody asked for are None."""
    if answer is None:
        return (None,) * len(EXPLANATION)
    sure = sure_of(str(row.get("evidence", "")))
    known = Known(str(row["sample_id"]), str(row["spoof_type"]), str(row["pai_species"]), sure)
    there = json.dumps(measured(known, cues)) if sure else None
    return answer.text, answer.spoof_type, answer.confidence, json.dumps(claimed(answer.text, cues)), there
