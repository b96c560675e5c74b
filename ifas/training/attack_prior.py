"""How often a trained model says each attack whatever the image is: measured after training, kept with the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ifas.core.errors import ImageRefused
from ifas.core.imaging import decode
from ifas.core.manifest import ImageSource

if TYPE_CHECKING:
    import pandas as pd

    from ifas.faces.face import Face
    from ifas.model.judge import Judge

#: Images of each attack, at most. Their average moves little with more of them, and each takes time at the end.
EACH = 8


def measure_prior(folder: Path, dev: pd.DataFrame, images: ImageSource) -> dict[str, float]:
    """Measures the prior of `model.attack_named` and writes it into a model directory.

    Args:
        folder: of the trained model.
        dev: development rows of the source domains. Equally many images of each attack are taken, so that the average
            shows what the model prefers, not what is frequent. Where an attack that the model knows has none, the
            prior stays even.
        images: where the bytes come from.

    Returns:
        The prior, by attack.

    Raises:
        CorruptShardError: a shard was altered.
    """
    from ifas.model.judge import Judge

    judge = Judge.load(folder)
    processor = judge.processor
    attacks = dev[dev["spoof_type"].isin(list(processor.attacks))].drop_duplicates("sample_id")
    # A sample id is a hash, so its order is as good as random, and the same everywhere.
    ordered = [rows for _, rows in attacks.sort_values("sample_id").groupby("spoof_type")]
    few = min((len(rows) for rows in ordered), default=0)
    if len(ordered) == len(processor.attacks) and few:
        faces = [face for rows in ordered for face in _faces(judge, rows.head(min(few, EACH)), images)]
        if faces:
            processor.attacks = judge.attack_prior(faces)
            processor.save_pretrained(folder)
    return processor.attacks


def _faces(judge: Judge, rows: pd.DataFrame, images: ImageSource) -> list[Face]:
    """The faces of the images that can be judged."""
    found = []
    for shard, row in zip(rows["shard"], rows["row"], strict=True):
        try:
            found.append(judge.find(decode(images.read(str(shard), int(row)))))
        except ImageRefused:
            continue
    return found
