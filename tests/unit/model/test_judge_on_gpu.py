"""The inference engine and the loss on a GPU give the CPU's numbers. The tests for a CPU are next to this file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import DINOV2, faces, tiny
from torch.nn import functional as F

from ifas.model.build import build, save
from ifas.model.fused_norm import SAME
from ifas.model.judge import Judge
from ifas.model.loss import answer_nll

pytestmark = pytest.mark.gpu
TOWERS = {
    "clip": (),
    "dinov2": DINOV2,
    "efficientnet-lite0": ("model.vision.kind=efficientnet-lite0", "model.vision.shape={}"),
}


@pytest.fixture(scope="module", params=TOWERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("judge") / "m"
    save(*build(tiny(*TOWERS[request.param]), seed=5), place)
    return place


def test_scores_and_texts_are_those_of_the_cpu(folder: Path) -> None:
    images = faces(9)
    cpu, gpu = Judge.load(folder, device="cpu"), Judge.load(folder)
    assert gpu.model.device.type == "cuda", "taken where there is one"
    assert any(m.forward.__name__ == "_forward" for m in gpu.model.modules() if type(m).__name__ in SAME)
    wanted = cpu.judge(images)
    np.testing.assert_allclose(gpu.judge(images), wanted, atol=1e-5)
    words = [(a.spoof_type, a.text) for a in cpu.explain(images)]
    assert [(a.spoof_type, a.text) for a in gpu.explain(images)] == words
    answers = gpu.answer(images)
    assert [a.score for a in answers] == gpu.judge(images).tolist(), "the very numbers of `judge`"
    pieces: dict[int, str] = {}
    for index, piece in gpu.stream(images):
        pieces[index] = pieces.get(index, "") + piece
    assert [pieces.get(i, "") for i in range(len(images))] == [a.text for a in answers]


def test_scores_do_not_depend_on_batch_or_order(folder: Path) -> None:
    images = faces(23)
    judge = Judge.load(folder)
    alone = np.array([judge.judge([image])[0] for image in images])
    order = np.random.default_rng(1).permutation(len(images))
    for batch in (2, 5, 16, 23):
        other = Judge(judge.model, judge.processor, batch=batch)
        np.testing.assert_allclose(other.judge([images[i] for i in order]), alone[order], atol=1e-5)


def test_bfloat16_is_close(folder: Path) -> None:
    half = Judge.load(folder, dtype="bfloat16")
    np.testing.assert_allclose(half.judge(faces(5)), Judge.load(folder).judge(faces(5)), atol=0.02)


def test_compiled(tmp_path: Path) -> None:
    save(*build(tiny(), seed=5), tmp_path / "m")
    judge, compiled = Judge.load(tmp_path / "m"), Judge.load(tmp_path / "m", batch=4, compile=True)
    images = faces(6)
    np.testing.assert_allclose(compiled.judge(images), judge.judge(images), atol=1e-5)
    assert [a.text for a in compiled.explain(images)] == [a.text for a in judge.explain(images)]


@pytest.mark.parametrize("trained", [False, True])
def test_the_loss_holds_half_of_what_naive_logits_do(trained: bool) -> None:
    """Real allocations of the card, vocabulary 49k, bf16."""
    made = {"dtype": torch.bfloat16, "device": "cuda"}
    hidden = torch.randn(720, 576, **made).requires_grad_()
    head = (0.02 * torch.randn(49_152, 576, **made)).requires_grad_(trained)
    targets = torch.randint(0, 49_152, (720,), device="cuda")
    peaks, losses, slopes = [], [], []
    for form in (
        lambda: answer_nll(hidden, head, None, targets).mean(),
        lambda: F.cross_entropy(F.linear(hidden, head).float(), targets),
    ):
        hidden.grad = head.grad = None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss = form()
        loss.backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
        losses.append(loss.item())
        assert hidden.grad is not None
        slopes.append(hidden.grad.float())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0.1, atol=2e-5)
    assert peaks[0] <= 0.5 * peaks[1]
