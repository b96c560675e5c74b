"""Spoof-aware captioning and filtering: Algorithm 1 of I-FAS (arXiv 2501.01720), from manifest to captioned manifest.

T_F = C_G(I_F);  D_S = filter(T_F);  C_S = finetune(C_G, D_S);  T_R = C_G(I_R);  T_S = C_S(I_F) for all attacks.

Not stated in the paper, chosen here: C_S is tuned on the train split of the source domains only, so that no dev, test
or target picture shapes a training text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.captioning.clauses import as_json, compose, describe
from ifas.captioning.filter import filter_captions, without_media
from ifas.captioning.identity import without_identity
from ifas.captioning.inputs import InputStore, NetworkInput, input_store
from ifas.captioning.parts import local_parts, shards_of
from ifas.captioning.protocol import Caption, Captioner, general_captioner
from ifas.captioning.specialists import Measurement
from ifas.captioning.statistics import scf_facts, scf_summary
from ifas.captioning.table import write_table
from ifas.captioning.vision_language import VisionLanguageCaptioner
from ifas.core.claims import SPECIALISTS
from ifas.core.errors import ConfigError, DataError
from ifas.core.files import remove, replacing, write_json
from ifas.core.imaging import decode
from ifas.core.manifest import MANIFEST_FILE, ImageSource, check_columns
from ifas.core.progress import Progress
from ifas.core.release_status import RELEASED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from ifas.captioning.spoof_aware import SpoofAwareCaptioner
    from ifas.core.config import CaptionConfig

CAPTIONER_DIR = "captioner"
STATS_FILE = "stats.json"

#: Pictures in memory at once while measuring; about 10 MB each.
_CHUNK = 16
_RECAPTION_CHUNK = 512

#: Unreadable pictures named in the report; stats.json names all.
_LISTED = 20


@dataclass(frozen=True)
class CaptionReport:
    """What captioning did: one line for a person, and every count as plain JSON (also in `stats.json`)."""

    summary: str
    facts: dict[str, Any]


def run_scf(
    manifest: pd.DataFrame,
    images: ImageSource,
    config: CaptionConfig,
    *,
    source_domains: Sequence[str],
    out: Path,
    work: Path | None = None,
) -> CaptionReport:
    """Captions every picture of a manifest.

    Writes `out`, at once and only when all is done: manifest.parquet with the caption columns, captioner/ with the
    tuned C_S, stats.json. Pictures that can't be decoded are listed and left out. Same inputs, same bytes.

    Args:
        manifest: all columns of `core.manifest.COLUMNS`; further ones are kept.
        work: folder where finished shards are kept, so that a run that was killed goes on there; None keeps nothing.
        source_domains: domains whose train split tunes C_S; empty means all domains. `config.source_domains` wins.

    Raises:
        ConfigError: unknown captioner or source domain.
        CorruptShardError: a shard does not match its hash.
        DataError: a column is missing, no picture can be decoded, or no caption of a tuning attack survives the filter.
    """
    import numpy as np

    check_columns(list(manifest.columns), where="the manifest to caption")
    general = general_captioner(config)
    domains = _known(tuple(config.source_domains) or tuple(source_domains), manifest)
    with replacing(out) as beside, _kept(work) as kept:
        beside.mkdir()
        with input_store(beside, len(manifest)) as store:
            said, seen, refused = _describe(manifest, images, general, store, config, kept)
            places = np.flatnonzero([caption is not None for caption in said])
            rows = _general_columns(manifest.iloc[places], [c for c in said if c is not None])
            # Nobody vouches for a quarantined row yet, and a canary shapes nothing, ever.
            mine = (rows["split"] == "train") & rows["domain"].isin(domains) & (rows["status"] == RELEASED)
            tuning = np.asarray(mine)
            _require_kept(rows[tuning], domains)
            tuned: SpoofAwareCaptioner | VisionLanguageCaptioner
            if isinstance(general, VisionLanguageCaptioner):
                tuned, losses = _tune_lora(general, rows[tuning], images, config)
                spoof_aware = _recaption(tuned, rows[rows["label"] == "spoof"], images)
            else:
                tuned, losses = _tune(rows[tuning], store, places[tuning], config)
                spoof_aware = _rewrite(tuned, store, places[np.flatnonzero(rows["label"] == "spoof")])
            rows, cut = _final_columns(rows, spoof_aware)
            if config.specialists:
                rows = _with_clauses(rows, [seen[place] for place in places], conditional=config.conditional)
        write_table(rows, beside / MANIFEST_FILE)
        tuned.save(beside / CAPTIONER_DIR)
        facts = scf_facts(rows, tuning, refused=refused, cut=cut, losses=losses)
        facts = {"captioner": general.name, "source_domains": list(domains), **facts, **_spoken(rows)}
        write_json(beside / STATS_FILE, facts)
    facts["unreadable"]["images"] = refused[:_LISTED]
    return CaptionReport(summary=scf_summary(facts), facts=facts)


@contextmanager
def _kept(work: Path | None) -> Iterator[Path]:
    """The folder of finished shards; it goes when all is done."""
    import tempfile

    if work is None:
        with tempfile.TemporaryDirectory(prefix="ifas-captions-") as scratch:
            yield Path(scratch)
        return
    folder = work / "captions"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    remove(folder)


def _spoken(rows: pd.DataFrame) -> dict[str, Any]:
    """Clauses by specialist, and how many labels are doubted."""
    named = Counter(one["specialist"] for text in rows["clauses"] for one in json.loads(text))
    return {"clauses": dict(sorted(named.items())), "labels_doubted": int(rows["label_audit"].notna().sum())}


def _known(domains: tuple[str, ...], manifest: pd.DataFrame) -> tuple[str, ...]:
    present = sorted(manifest["domain"].unique())
    unknown = sorted(set(domains) - set(present))
    if unknown:
        raise ConfigError(
            f"source domain(s) {', '.join(unknown)} are not in the manifest",
            f"set caption.source_domains or protocol.source_domains to some of: {', '.join(present)}",
        )
    return domains or tuple(present)


def _describe(
    manifest: pd.DataFrame,
    images: ImageSource,
    general: Captioner,
    store: InputStore,
    config: CaptionConfig,
    work: Path,
) -> tuple[list[Caption | None], list[dict[str, Measurement]], list[dict[str, str]]]:
    """General captions of all rows (None where a picture was refused), what specialists saw, and refusals."""
    progress = Progress("caption", total=len(manifest), unit="images")
    said: list[Caption | None] = [None] * len(manifest)
    seen: list[dict[str, Measurement]] = [{} for _ in range(len(manifest))]
    shards = shards_of(manifest)
    everything = [rows for _, _, rows in shards]
    if config.where == "ray":
        from ifas.captioning.ray_captions import ray_parts

        parts = ray_parts(everything, images, config, work)
    else:
        parts = local_parts(everything, images, general, config, work)
    reasons: dict[int, str] = {}
    for (_, places, _), part in zip(shards, parts, strict=True):
        for n, place in enumerate(places):
            said[place], seen[place] = part.captions[n], part.seen[n]
            if said[place] is None:
                reasons[place] = part.why[n]
            store.put(place, NetworkInput(part.pictures[n], part.features[n]))
        progress.advance(len(places), phase="general captions")
    if not any(said):
        raise DataError(f"none of the {len(manifest)} images can be decoded", "check that the shards hold images")
    ids = manifest["sample_id"].tolist()
    return said, seen, [{"sample_id": str(ids[place]), "why": why} for place, why in sorted(reasons.items())]


def _general_columns(rows: pd.DataFrame, said: list[Caption]) -> pd.DataFrame:
    """Rows with T_F or T_R as `caption_general`, the evidence, and D_S as `caption_kept`."""
    attack = rows["label"] == "spoof"
    rows = rows.assign(
        caption_general=[caption.text for caption in said],
        evidence=[json.dumps({k: round(v, 4) for k, v in caption.evidence.items()}) for caption in said],
        caption_kept=False,
        clauses="[]",
        label_audit=None,
    )
    rows.loc[attack, "caption_kept"] = filter_captions(rows[attack])
    return rows


def _require_kept(tuning: pd.DataFrame, domains: tuple[str, ...]) -> None:
    if tuning["caption_kept"].any():
        return
    attacks = int((tuning["label"] == "spoof").sum())
    raise DataError(
        f"no general caption names the right medium: 0 of {attacks} attacks in the train split of "
        f"{', '.join(domains)} pass the filter, so the captioner can't be tuned",
        "add attack images to the train split of the source domains, or choose another captioner",
    )


def _tune(
    tuning: pd.DataFrame, store: InputStore, places: npt.NDArray[np.int64], config: CaptionConfig
) -> tuple[SpoofAwareCaptioner, dict[str, list[float]]]:
    """C_S: first C_G becomes a network by imitation of all its captions, then that network is tuned on D_S."""
    import numpy as np

    from ifas.captioning.spoof_aware import SpoofAwareCaptioner, reproducible

    texts = tuning["caption_general"].tolist()
    kept = np.flatnonzero(tuning["caption_kept"])
    progress = Progress("caption", total=config.imitate_steps + config.tune_steps, unit="steps")
    with reproducible():
        captioner = SpoofAwareCaptioner.new(texts, store.features(places), config.seed)
        imitate = captioner.learn(store, places, texts, config, steps=config.imitate_steps, progress=progress)
        kept_texts = [texts[i] for i in kept]
        tune = captioner.learn(store, places[kept], kept_texts, config, steps=config.tune_steps, progress=progress)
    return captioner, {"imitate": imitate, "tune": tune}


def _tune_lora(
    general: VisionLanguageCaptioner, tuning: pd.DataFrame, images: ImageSource, config: CaptionConfig
) -> tuple[VisionLanguageCaptioner, dict[str, list[float]]]:
    """C_S: the general captioner with an adapter tuned on D_S. Changed in place; its own captions are made by then."""
    from ifas.captioning.spoof_aware import reproducible

    kept = tuning[tuning["caption_kept"]]
    places = list(zip(kept["shard"].astype(str), kept["row"].astype(int), strict=True))
    progress = Progress("caption", total=config.tune_steps, unit="steps")
    with reproducible():
        losses = general.tune(
            lambda i: decode(images.read(*places[i])), kept["caption_general"].tolist(), config.seed, progress
        )
    return general, {"imitate": [], "tune": losses}


def _rewrite(tuned: SpoofAwareCaptioner, store: InputStore, places: npt.NDArray[np.int64]) -> list[str]:
    """T_S of the attacks at these places of the store."""
    from ifas.captioning.spoof_aware import reproducible

    texts: list[str] = []
    progress = Progress("caption", total=len(places), unit="captions")
    with reproducible():
        for start in range(0, len(places), _RECAPTION_CHUNK):
            chunk = places[start : start + _RECAPTION_CHUNK]
            texts += tuned.write(*store.get(chunk))
            progress.advance(len(chunk), phase="spoof-aware captions")
    return texts


def _recaption(tuned: VisionLanguageCaptioner, attacks: pd.DataFrame, images: ImageSource) -> list[str]:
    """T_S of the attacks, whose pictures are read again; all of them could be decoded before."""
    texts: list[str] = []
    progress = Progress("caption", total=len(attacks), unit="captions")
    for start in range(0, len(attacks), _CHUNK):
        chunk = attacks.iloc[start : start + _CHUNK]
        places = zip(chunk["shard"].astype(str), chunk["row"].astype(int), strict=True)
        pictures = [decode(images.read(shard, row)) for shard, row in places]
        texts += [c.text for c in tuned.caption(pictures, [None] * len(pictures))]
        progress.advance(len(chunk), phase="spoof-aware captions")
    return texts


def _with_clauses(rows: pd.DataFrame, seen: list[dict[str, Measurement]], *, conditional: bool) -> pd.DataFrame:
    """Rows whose captions say what specialists saw and the label allows, with provenance and the label audit."""
    texts, clauses, audit, evidence = [], [], [], []
    for text, spoof_type, known, mine in zip(rows["caption"], rows["spoof_type"], rows["evidence"], seen, strict=True):
        found = describe(mine, str(spoof_type), conditional=conditional)
        composed, held = compose(str(text), found.clauses)
        texts.append(composed)
        clauses.append(json.dumps(as_json(held)))
        audit.append(json.dumps(as_json(found.doubts)) if found.doubts else None)
        sure = {name: round(one.confidence, 4) for name, one in mine.items()}
        evidence.append(json.dumps({**json.loads(known), SPECIALISTS: sure}))
    return rows.assign(caption=texts, clauses=clauses, label_audit=audit, evidence=evidence)


def _final_columns(rows: pd.DataFrame, spoof_aware: list[str]) -> tuple[pd.DataFrame, dict[str, int]]:
    """Rows with T_S for attacks and T_R for bona fide as `caption`; counts of clauses cut from T_R."""
    import numpy as np

    attack = np.asarray(rows["label"] == "spoof")
    texts = rows["caption_general"].to_numpy(dtype=object, copy=True)
    texts[attack] = [without_identity(text)[0] for text in spoof_aware]
    cut = {"captions": 0, "clauses": 0}
    for i in np.flatnonzero(~attack):
        texts[i], clauses = without_media(texts[i])
        cut["captions"] += clauses > 0
        cut["clauses"] += clauses
    return rows.assign(caption=texts, caption_source=np.where(attack, "spoof-aware", "general")), cut
