"""`python -m benchmarks.loss`: peak memory and time of the loss against naive logits, at a vocabulary of 49k.

The naive form is `cross_entropy(head(hidden))` and its gradient, as autograd does it: it holds tokens x vocabulary
three times. Each form runs in a process of its own, so that its peak is its own; what the inputs take is subtracted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from benchmarks.figure import figure

#: SmolLM2's head, and the answer tokens of a micro-batch of 16.
VOCABULARY, WIDTH, TOKENS = 49_152, 576, 16 * 45


def measured(form: str, trained: bool) -> dict[str, float]:
    """Peak memory in bytes above the inputs, and processor seconds of the quickest pass."""
    import torch
    from torch.nn import functional as F

    from ifas.model.loss import answer_nll

    torch.set_num_threads(1)
    torch.manual_seed(0)
    head = torch.randn(VOCABULARY, WIDTH, requires_grad=trained)
    hidden = torch.randn(TOKENS, WIDTH, requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (TOKENS,))
    before = _resident()
    passes = []
    for _ in range(4):
        hidden.grad = head.grad = None
        began = time.process_time()
        if form == "naive":
            nll = F.cross_entropy(F.linear(hidden, head), targets, reduction="none")
        else:
            nll = answer_nll(hidden, head, None, targets)
        nll.mean().backward()
        passes.append(time.process_time() - began)
    return {"peak": _peak() - before, "seconds": min(passes)}


def _resident() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def _peak() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def main() -> int:
    """Prints the figures; 1 where a bar is missed."""
    if sys.argv[1:2] == ["--form"]:
        print(json.dumps(measured(sys.argv[2], sys.argv[3] == "trained")))
        return 0
    ok = True
    for trained in ("frozen", "trained"):
        found = {}
        for form in ("naive", "ours"):
            command = [sys.executable, "-m", "benchmarks.loss", "--form", form, trained]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[form] = json.loads(done.stdout.splitlines()[-1])
        ours, naive = found["ours"], found["naive"]
        ok &= figure(
            f"loss, {trained} head: peak memory",
            ours["peak"] / 2**20,
            "MiB",
            baseline=naive["peak"] / 2**20,
            bar=0.5,
            bar_is="ratio <=",
        )
        figure(f"loss, {trained} head: forward and backward", ours["seconds"], "s", baseline=naive["seconds"])
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
