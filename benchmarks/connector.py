"""`python -m benchmarks.connector`: what GAC's norm of the patches costs a training step behind a frozen tower.

Forward and backward pass of the demo's connector, and of its whole model, on kept features (`train.features`), one
thread, random weights: `patch_norm=shared` against `own`, in turn. CPU seconds are medians of the rounds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.figure import figure
from ifas.core.environment import prepare

BATCH, ROUNDS, BAR = 32, 7, 0.75
#: Tokens of a prompt without its image, and of an answer, about as the demo has them.
PROMPT_TOKENS, ANSWER_TOKENS = 20, 45


def passes(norm: str) -> dict[str, Callable[[], Any]]:
    """The two passes with one norm, by name."""
    import torch

    from ifas.core.config import load
    from ifas.model import tuning
    from ifas.model.build import ifas_config
    from ifas.model.ifas_model import IfasModel
    from ifas.model.loss import INTERPRETATION, JUDGMENT, PROMPT

    torch.manual_seed(0)
    config = load("laptop", [f"model.connector.patch_norm={norm}"]).model
    model = IfasModel(ifas_config(config, download=False))
    tuning.prepare(model, config)
    model.train()
    with torch.no_grad():
        size = config.vision.image_size
        features = model.features(torch.zeros(1, len(config.views), 3, size, size, dtype=torch.uint8))
    features = torch.randn(BATCH, features.shape[1])
    prompt = model.connector.tokens + PROMPT_TOKENS
    ids = torch.randint(1, model.language.config.vocab_size, (BATCH, prompt + ANSWER_TOKENS))
    ids[:, : model.connector.tokens] = model.config.image_token_id
    parts = torch.full_like(ids, PROMPT)
    parts[:, prompt], parts[:, prompt + 1 :] = JUDGMENT, INTERPRETATION

    def connector() -> None:
        model.connector(*model.seen(features)).square().mean().backward()

    def step() -> None:
        model(input_ids=ids, parts=parts, features=features).sums.sum().backward()

    return {"connector": connector, "whole model": step}


def main() -> int:
    """Prints the figures; 1 where a bar is missed."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    prepare()
    import torch

    torch.set_num_threads(1)
    of = {norm: passes(norm) for norm in ("own", "shared")}
    ok = True
    for name, bar in (("connector", BAR), ("whole model", None)):
        seconds: dict[str, list[float]] = {norm: [] for norm in of}
        for _ in range(ROUNDS):
            for norm, made in of.items():
                began = time.process_time()
                made[name]()
                seconds[norm].append(time.process_time() - began)
        own, shared = (median(seconds[norm]) for norm in ("own", "shared"))
        title = f"norm of the patches, {name}: CPU seconds of {BATCH} samples"
        ok &= figure(title, shared, "s", baseline=own, bar=bar, bar_is="ratio <=")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
