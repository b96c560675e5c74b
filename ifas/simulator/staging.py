"""One picture from its job: draws the light, the framing and the attack, takes the picture, writes its record."""

from __future__ import annotations

from typing import Any

import numpy as np

from ifas.simulator.camera import PICTURE, SENSOR, develop, draw_shot, encode
from ifas.simulator.cast import Cast
from ifas.simulator.displays import draw_display, show_display
from ifas.simulator.domains import DOMAINS
from ifas.simulator.framing import draw_framing
from ifas.simulator.light import draw_light
from ifas.simulator.plan import KINDS, Job
from ifas.simulator.prints import draw_print, show_print
from ifas.simulator.visible import Scene, visible

#: Stream number of a kind's generator. Not small: SeedSequence reads [s, 0, 1] and [s, 0, 1, 0] as the same seed.
STREAM = {kind: 101 + n for n, kind in enumerate(KINDS)}


def sample_name(cast: Cast, job: Job) -> str:
    """File name without suffix: says that it is synthetic or the user's, the subject, the kind, a number."""
    return f"{subject_id(cast, job.subject)}_{job.kind}_{job.index:02d}"


def subject_id(cast: Cast, subject: int) -> str:
    """`syn_0001` for the first rendered person, `user_0001` for the first portrait."""
    return f"{cast.prefix}_{subject + 1:04d}"


def sample_path(cast: Cast, job: Job) -> str:
    """Path of the picture within the data set, in the `folder` layout."""
    return f"{job.domain}/{job.kind}/{subject_id(cast, job.subject)}/{sample_name(cast, job)}.jpg"


def stage(cast: Cast, job: Job, seed: int) -> tuple[bytes, dict[str, Any]]:
    """Takes the picture: JPEG bytes and its line of samples.jsonl. Depends on its arguments only."""
    rng = np.random.default_rng([seed, job.subject, STREAM[job.kind], job.index])
    domain = DOMAINS[job.domain]
    light = draw_light(rng, domain.light)
    framing = draw_framing(rng)
    backdrop = domain.backdrop(rng, SENSOR)
    if job.kind == "live":
        scene = Scene(*cast.live(job.subject, framing, light, backdrop, rng))
    elif job.kind == "mask":
        scene = cast.masked(job.subject, job.impersonates, framing, light, backdrop, rng)
    else:
        photo = cast.photo(job.subject, rng)
        if job.kind == "print":
            sheet = draw_print(rng, bent=job.species == "print.bent")
            scene = show_print(sheet, photo, framing, light, backdrop, rng)
        else:
            display = draw_display(rng, job.species.partition(".")[2])
            scene = show_display(display, photo, framing, light, backdrop, domain.backdrop, rng)
    camera = domain.camera
    shot = draw_shot(scene.radiance, camera, rng)
    jpeg = encode(develop(scene.radiance, camera, shot, rng), shot.quality)
    live = job.kind == "live"
    truth: dict[str, object] | None = None
    if not live:
        truth = dict(scene.truth, visible=visible(scene, camera, shot))
        if job.kind == "mask":
            truth["impersonates"] = subject_id(cast, job.impersonates)
        if not cast.rendered:
            truth["staged"] = True
    record = {
        "path": sample_path(cast, job),
        "domain": job.domain,
        "subject_id": subject_id(cast, job.subject),
        "media_id": sample_name(cast, job),
        "split": job.split,
        "label": "live" if live else "spoof",
        "spoof_type": job.kind,
        "pai_species": job.species,
        "device": camera.name,
        "environment": domain.environment,
        "illumination": domain.illumination,
        "face_box": [round(float(v) * PICTURE, 1) for v in scene.box],
        "width": PICTURE,
        "height": PICTURE,
        "licence": cast.licence,
        "source": "ifas simulator, MPFB2 head" if cast.rendered else "user portrait, first to last by name",
        "synthetic": cast.rendered or not live,
        "attack": truth,
    }
    return jpeg, record
