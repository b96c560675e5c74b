"""Spoof-aware captioning and filtering: Algorithm 1 of I-FAS (arXiv 2501.01720), from manifest to captioned manifest.

C_G is the general captioner, C_S the spoof-aware one; I_F and I_R are the pictures of attacks and of bona fide faces,
T_F, T_R and T_S their captions. `run_scf` names each line of the algorithm where it does it.

Not stated in the paper, chosen here: C_S is tuned on the train split of the source domains only, so that no dev, test
or target picture shapes a training text. Each of these has an option that selects the paper's bare form: several
captions of an attack are drawn before the filter, D_S is balanced, the steps are chosen on held-out subjects, and the
final texts may name no wrong medium and say nothing that was not measured (docs/captions.md).
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifas.captioning.captioners import general_captioner
from ifas.captioning.clauses import with_clauses
from ifas.captioning.filter import filter_captions, true_to_label
from ifas.captioning.general import General, general_captions
from ifas.captioning.identity import without_identity
from ifas.captioning.kept import Kept
from ifas.captioning.pictures import Pictures
from ifas.captioning.statistics import scf_facts, scf_summary
from ifas.captioning.supported import supported
from ifas.captioning.table import write_table
from ifas.core.errors import ConfigError, DataError
from ifas.core.files import remove, replacing, write_json
from ifas.core.manifest import MANIFEST_FILE, ImageSource, check_columns
from ifas.core.release_status import RELEASED
from ifas.faces.finder import Finder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from ifas.captioning.scene import Scene
    from ifas.captioning.specialists import Measurement
    from ifas.core.config import CaptionConfig

    Bools = npt.NDArray[np.bool_]

CAPTIONER_DIR = "captioner"
STATS_FILE = "stats.json"

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
    uri: str = "",
    finder: Finder | None = None,
) -> CaptionReport:
    """Captions every picture of a manifest.

    Writes `out`, at once and only when all is done: manifest.parquet with the caption columns, captioner/ with the
    tuned C_S, stats.json. Pictures that can't be decoded are listed and left out. Same inputs, same bytes.

    Args:
        manifest: all columns of `core.manifest.COLUMNS`; further ones are kept.
        work: folder where finished shards are kept, so that a run that was killed goes on there; None keeps nothing.
        uri: where a cluster's finished shards are kept as well, for a run that goes on elsewhere; empty: nowhere.
        finder: of faces: `face_box` becomes that of the face that was found, `face_refused` says why there is none.
            None keeps the boxes of the dataset.
        source_domains: domains whose train split tunes C_S; empty means all domains. `config.source_domains` wins.

    Raises:
        ConfigError: unknown captioner or source domain.
        CorruptShardError: a shard does not match its hash.
        DataError: a column is missing, no picture can be decoded, or no caption of a tuning attack survives the filter.
    """
    import numpy as np

    check_columns(list(manifest.columns), where="the manifest to caption")
    captioner = general_captioner(config)
    domains = _known(tuple(config.source_domains) or tuple(source_domains), manifest)
    with replacing(out) as beside, _kept(work) as folder:
        # T_F = C_G(I_F), several of each picture, and T_R = C_G(I_R)
        general = general_captions(manifest, images, captioner, config, folder=folder, uri=uri, finder=finder)
        rows, places = _captioned(manifest, general)
        pictures = Pictures.of(rows, general.features[places], images)

        # D_S = filter(T_F)
        attack = np.asarray(rows["label"] == "spoof")
        said = [
            (text, *general.drawn[place]) if mine else ()
            for text, place, mine in zip(rows["caption_general"], places, attack, strict=True)
        ]
        passed = filter_captions(said, rows["spoof_type"].tolist())
        rows["caption_kept"] = [bool(texts) for texts in passed]

        # C_S = finetune(C_G, D_S)
        tuning = np.flatnonzero(_tuning(rows, domains))
        chosen = rows.iloc[tuning]
        _require_kept(chosen, domains)
        kept = Kept.of(
            [passed[i] for i in tuning],
            chosen["spoof_type"].tolist(),
            chosen["subject_id"].astype(str).tolist(),
            balance=config.balance,
        )
        tuned, losses = captioner.tune(pictures.take(tuning), kept, config)

        # T_S = C_S(I_F), of all attacks
        spoof_aware = tuned.write(pictures.take(np.flatnonzero(attack)))

        # D_cap = {(I_R, T_R)} and {(I_F, T_S)}
        rows, cut = _final(rows, attack, spoof_aware, [_measured(general, place) for place in places], config)
        if config.specialists:
            rows = with_clauses(rows, [general.seen[place] for place in places], conditional=config.conditional)

        facts = {
            "captioner": captioner.name,
            "source_domains": list(domains),
            **scf_facts(rows, tuning, kept=kept, refused=general.refused, cut=cut, losses=losses),
        }
        beside.mkdir()
        write_table(rows, beside / MANIFEST_FILE)
        tuned.save(beside / CAPTIONER_DIR)
        write_json(beside / STATS_FILE, facts)
    facts["unreadable"]["images"] = general.refused[:_LISTED]
    return CaptionReport(summary=scf_summary(facts), facts=facts)


@contextmanager
def _kept(work: Path | None) -> Iterator[Path]:
    """The folder of finished shards; it goes when all is done."""
    if work is None:
        with tempfile.TemporaryDirectory(prefix="ifas-captions-") as scratch:
            yield Path(scratch)
        return
    folder = work / "captions"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    remove(folder)


def _known(domains: tuple[str, ...], manifest: pd.DataFrame) -> tuple[str, ...]:
    """The source domains, all of the manifest where none is named."""
    present = sorted(manifest["domain"].unique())
    unknown = sorted(set(domains) - set(present))
    if unknown:
        raise ConfigError(
            f"source domain(s) {', '.join(unknown)} are not in the manifest",
            f"set caption.source_domains or protocol.source_domains to some of: {', '.join(present)}",
        )
    return domains or tuple(present)


def _captioned(manifest: pd.DataFrame, general: General) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    """Rows whose pictures could be decoded, with T_F or T_R as `caption_general`; and their places in the manifest."""
    import numpy as np

    said = [caption for caption in general.captions if caption is not None]
    places = np.flatnonzero([caption is not None for caption in general.captions])
    rows = manifest.iloc[places].assign(
        caption_general=[caption.text for caption in said],
        evidence=[json.dumps({k: round(v, 4) for k, v in caption.evidence.items()}) for caption in said],
        caption_tuned=None,
        caption_kept=False,
        clauses="[]",
        label_audit=None,
        face_box=[general.boxes[place] for place in places],
        face_refused=[general.unjudged[place] for place in places],
    )
    return rows, places


def _tuning(rows: pd.DataFrame, domains: tuple[str, ...]) -> Bools:
    """Which rows tune C_S. Quarantined rows have no approval yet, and canaries must never shape anything."""
    import numpy as np

    return np.asarray((rows["split"] == "train") & rows["domain"].isin(domains) & (rows["status"] == RELEASED))


def _require_kept(tuning: pd.DataFrame, domains: tuple[str, ...]) -> None:
    if tuning["caption_kept"].any():
        return
    attacks = int((tuning["label"] == "spoof").sum())
    raise DataError(
        f"no general caption names the right medium: 0 of {attacks} attacks in the train split of "
        f"{', '.join(domains)} pass the filter, so the captioner can't be tuned",
        "add attack images to the train split of the source domains, or choose another captioner",
    )


def _measured(general: General, place: int) -> tuple[Mapping[str, Measurement], Scene]:
    return general.seen[place], general.scenes[place]


def _final(
    rows: pd.DataFrame,
    attack: Bools,
    spoof_aware: Sequence[str],
    measured: Sequence[tuple[Mapping[str, Measurement], Scene]],
    config: CaptionConfig,
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Rows with what the model learns of attacks (T_S) and bona fide faces (T_R) as `caption`, and T_S as C_S wrote it
    as `caption_tuned`; and how many texts lost clauses on media and on what was not measured."""
    import numpy as np

    tuned = np.full(len(rows), None, dtype=object)
    tuned[attack] = [without_identity(text)[0] for text in spoof_aware]
    texts = np.where(attack, tuned, rows["caption_general"].to_numpy(dtype=object))
    cut: dict[str, int] = Counter()
    for i, (spoof_type, (seen, scene)) in enumerate(zip(rows["spoof_type"], measured, strict=True)):
        who = "attack" if attack[i] else "bona_fide"
        if config.wrong_medium != "keep":
            texts[i], clauses = true_to_label(texts[i], spoof_type, config.wrong_medium)
            cut[f"{who}_captions_cut"] += clauses > 0
            cut[f"{who}_clauses_cut"] += clauses
        if config.supported:
            texts[i], clauses = supported(texts[i], seen, scene)
            cut["unsupported_captions_cut"] += clauses > 0
    final = rows.assign(caption=texts, caption_tuned=tuned, caption_source=np.where(attack, "spoof-aware", "general"))
    return final, cut
