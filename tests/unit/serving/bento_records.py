"""A tiny real model and the records of a run, as packaging gets them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage.data import astronaut

from ifas.core.calibration import Calibration
from ifas.core.config import load
from ifas.core.files import sha256_tree
from ifas.core.measures import MEASURES
from ifas.core.records import Lineage, LineageEntry

CANDIDATE = "c-7f3a"
THRESHOLD = 0.4625
CALIBRATION = Calibration(temperature=0.4, bias=-0.3)


def tiny_model(folder: Path) -> Path:
    """A model directory of the profile `tiny`, random weights, that finds faces as other profiles do."""
    from ifas.model.build import build, save

    save(*build(load("tiny", ["model.faces.finder=mtcnn"]).model, seed=3), folder)
    return folder


def picture(seed: int = 0, size: tuple[int, int] = (160, 144), kind: str = "PNG") -> bytes:
    """A face that scikit-image carries (NASA, public domain), in another light and place for each seed."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(60, 100), rng.integers(0, 20)
    pixels = astronaut()[y : y + 270, x : x + 300] * rng.uniform(0.5, 1, 3)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).resize(size).save(file, kind)
    return file.getvalue()


def metrics() -> dict[str, Any]:
    """The keys of metrics.json that packaging reads."""
    rate = {"value": 0.125, "interval": [0.0432, 0.3123], "errors": 3, "n": 24}
    tree: dict[str, Any] = {"about": "test images", "n": 48, "n_live": 24, "n_spoof": 24, "n_subjects": 6}
    tree |= {name: dict(rate) for name in MEASURES}
    tree["apcer"] = {"print.a4": dict(rate), "replay.phone": {**rate, "value": 0.25}}
    other = {**tree, "explanation_medium": {"value": None, "reason": "no such explanation in this slice", "n": 0}}
    return {
        "schema": 1,
        "calibration": {
            **CALIBRATION.model_dump(),
            "n": 88,
            "source_test": {"n": 48, "ece": {"before": 0.2, "after": 0.1}, "nll": {"before": 0.7, "after": 0.5}},
        },
        "threshold": {
            "value": THRESHOLD,
            "rule": "eer",
            "rule_text": "where both errors are equally frequent",
            "from": {"split": "dev", "domains": ["office", "street"]},
            "n_live": 31,
            "n_spoof": 57,
            "n_subjects": 11,
        },
        "protocol": {"source_domains": ["office", "street"], "target_domains": ["kiosk"], "cross_domain": True},
        "data": {"synthetic": True, "n_dev": 88, "n_test": 96, "non_response": {"n": 2}},
        "intervals": {"level": 0.95, "rates": "by person", "others": "bootstrap over subjects"},
        "slices": {"source_test": tree, "target": other, "domain:kiosk": other},
    }


def lineage(figures: dict[str, Any], *, without: tuple[str, ...] = ()) -> Lineage:
    facts: dict[str, dict[str, Any]] = {
        "ingest": {
            "dataset": "demo",
            "revision": "4be1c0ffee",
            "dataset_sha256": "5a5a",
            "rows": 300,
            "index": {"licences": {"CC0-1.0": 299, "terms|of X": 1}, "subjects": 40},
        },
        "caption": {"kept": 71, "dropped": 29, "keywords": {"all": {"before": 0.71, "after": 0.93}}},
        "validate": {"rules": 12},
        "train": {"steps": 120, "alpha": 0.7, "images": {"total": 210, "live": 80}},
        "evaluate": {"metrics": figures},
        "gate": {"evidence_sha256": "e" * 64},
    }
    found = Lineage(run_id="20260101-120000")
    for step, known in facts.items():
        if step not in without:
            entry = LineageEntry(
                step=step,
                config="",
                code="",
                inputs={},
                outputs={},
                summary=f"summary of {step}",
                facts=known,
                image="local",
                started="2026-01-01T12:00:00+00:00",
                seconds=1.0,
            )
            found = found.append(entry)
    return found


def approval(model: Path, **changes: Any) -> dict[str, Any]:
    return {
        "candidate": CANDIDATE,
        "product": "ifas",
        "state": "approved",
        "actor": "reviewer",
        "reason": "margins hold",
        "at": "2026-01-02T08:00:00+00:00",
        "evidence_sha256": "e" * 64,
        "model_sha256": sha256_tree(model),
        **changes,
    }
