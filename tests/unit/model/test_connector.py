"""GAC against a reference written from the equations, in numpy and one sample at a time."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import faces, tiny

from ifas.core.errors import ConfigError
from ifas.model.build import build, load, save
from ifas.model.connector import GloballyAwareConnector, LastTokenConnector, new_connector
from ifas.model.judge import Judge

WIDTH, HEADS, QUERIES, PATCH, OUT = 8, 2, 3, 5, 7


def connector(
    level_widths: tuple[int, ...], layers: int = 2, level_linear: str = "own", patch_norm: str = "shared"
) -> GloballyAwareConnector:
    torch.manual_seed(0)
    made = GloballyAwareConnector(
        queries=QUERIES,
        layers=layers,
        heads=HEADS,
        width=WIDTH,
        level_widths=level_widths,
        patch_width=PATCH,
        out_width=OUT,
        level_linear=level_linear,
        patch_norm=patch_norm,
    )
    for parameter in made.parameters():  # biases and norms too: a wrong one would hide behind 0 and 1
        torch.nn.init.normal_(parameter, std=0.5)
    return made.double().eval()


def linear(p: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def norm(p: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    normed = (x - mean) / np.sqrt(var + 1e-5)
    return normed * p[f"{name}.weight"] + p[f"{name}.bias"] if f"{name}.weight" in p else normed


def attention(p: dict[str, np.ndarray], name: str, x: np.ndarray, source: np.ndarray) -> np.ndarray:
    q, k, v = linear(p, f"{name}.query", x), linear(p, f"{name}.key", source), linear(p, f"{name}.value", source)
    size = WIDTH // HEADS
    mixed = np.zeros_like(q)
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(q)):
            scores = np.array([q[i, part] @ k[j, part] / math.sqrt(size) for j in range(len(k))])
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            mixed[i, part] = sum(weights[j] * v[j, part] for j in range(len(k)))
    return linear(p, f"{name}.out", mixed)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def reference(model: GloballyAwareConnector, patches: np.ndarray, levels: list[np.ndarray]) -> np.ndarray:
    """X_T of one sample: X_V (N, D), G_V a list of L vectors."""
    p = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    shared = len(model.levels) == 1
    q_v = np.stack([linear(p, f"levels.{0 if shared else i}", g) for i, g in enumerate(levels)])
    q = np.concatenate([p["queries"], q_v])  # Q = [Q_P ; Linear(G_V)]
    for i in range(len(model.layers)):
        at = f"layers.{i}"
        normed = norm(p, f"{at}.norm_self", q)
        q1 = q + attention(p, f"{at}.msa", normed, normed)  # Q' = Q + MSA(LN(Q))
        q2 = q1 + attention(  # Q'' = Q' + MCA(LN(Q'), LN(X_V))
            p, f"{at}.mca", norm(p, f"{at}.norm_cross", q1), norm(p, f"{at}.norm_patches", patches)
        )
        hidden = gelu(linear(p, f"{at}.mlp.fc1", norm(p, f"{at}.norm_mlp", q2)))
        q = q2 + linear(p, f"{at}.mlp.fc2", hidden)  # X_T = Q'' + MLP(LN(Q''))
    return linear(p, "project", norm(p, "norm_out", q))


@pytest.mark.parametrize("patch_norm", ["own", "shared"])
@pytest.mark.parametrize("level_linear", ["own", "shared"])
@pytest.mark.parametrize("level_widths", [(6, 6, 6), (4, 6, 9)], ids=["one width", "several widths"])
def test_equations(level_widths: tuple[int, ...], level_linear: str, patch_norm: str) -> None:
    model = connector(level_widths, level_linear=level_linear, patch_norm=patch_norm)
    assert any("norm_patches" in name for name in model.state_dict()) is (patch_norm == "own")
    rng = np.random.default_rng(1)
    patches = rng.normal(size=(2, 4, PATCH))
    levels = [rng.normal(size=(2, w)) for w in level_widths]
    with torch.no_grad():
        got = model(torch.from_numpy(patches), [torch.from_numpy(g) for g in levels]).numpy()
    assert got.shape == (2, QUERIES + len(level_widths), OUT)
    for b in range(2):
        np.testing.assert_allclose(got[b], reference(model, patches[b], [g[b] for g in levels]), atol=1e-10)


def test_a_norm_for_all_layers_can_compute_what_a_norm_of_each_does() -> None:
    """The weights of a LayerNorm can be those of the Linears behind it."""
    own, shared = connector((6, 6), patch_norm="own"), connector((6, 6))
    weights = own.state_dict()
    for at in (f"layers.{i}" for i in range(2)):
        gain, bias = weights.pop(f"{at}.norm_patches.weight"), weights.pop(f"{at}.norm_patches.bias")
        for name in ("key", "value"):
            matrix = weights[f"{at}.mca.{name}.weight"]
            weights[f"{at}.mca.{name}.weight"] = matrix * gain
            weights[f"{at}.mca.{name}.bias"] = weights[f"{at}.mca.{name}.bias"] + matrix @ bias
    shared.load_state_dict(weights)
    patches, levels = torch.randn(2, 4, PATCH).double(), list(torch.randn(2, 2, 6).double())
    assert torch.allclose(own(patches, levels), shared(patches, levels))


def test_a_linear_for_each_level_or_one_where_widths_agree() -> None:
    assert len(connector((6, 6, 6)).levels) == 3
    assert len(connector((6, 6, 6), level_linear="shared").levels) == 1
    assert [layer.in_features for layer in connector((4, 6, 9), level_linear="shared").levels] == [4, 6, 9]


def test_with_its_own_linear_a_level_is_told_apart_wherever_it_stands() -> None:
    """With one for all, GAC can't tell two levels apart: exchanged levels give exchanged tokens, and nothing else."""
    patches, (first, second) = torch.randn(1, 4, PATCH).double(), torch.randn(2, 1, 6).double()
    with torch.no_grad():
        for level_linear, same in (("shared", True), ("own", False)):
            model = connector((6, 6), level_linear=level_linear)
            out, exchanged = model(patches, [first, second]), model(patches, [second, first])
            assert torch.allclose(out[:, QUERIES:], exchanged[:, QUERIES:].flip(1)) is same, level_linear
            assert torch.allclose(out[:, :QUERIES], exchanged[:, :QUERIES]) is same, level_linear


def test_every_level_reaches_the_language_model() -> None:
    model = connector((4, 6, 9))
    patches = torch.randn(1, 4, PATCH, dtype=torch.float64)
    levels = [torch.randn(1, w, dtype=torch.float64, requires_grad=True) for w in (4, 6, 9)]
    model(patches, levels).sum().backward()
    assert all(level.grad is not None and level.grad.abs().sum() > 0 for level in levels)


def test_scale_of_fresh_tokens_matches_word_embeddings() -> None:
    model = GloballyAwareConnector(
        queries=16, layers=1, heads=4, width=64, level_widths=(8, 8), patch_width=32, out_width=256
    )
    model.match_scale(0.13)
    with torch.no_grad():
        out = model(torch.randn(4, 9, 32), [torch.randn(4, 8)] * 2)
    assert 0.1 < out.std().item() < 0.17


def test_a_fresh_connector_hands_on_its_queries_and_global_tokens_as_they_are() -> None:
    """X_T = Q: no residual branch adds anything before it has learned something."""
    config = tiny("model.connector.layers=3", "model.connector.dropout=0.2")
    model = build(config, seed=3)[0].connector
    x_v, g_v = torch.randn(2, 9, 32), [torch.randn(2, 32) for _ in model.level_widths]
    q_v = [linear(level) for linear, level in zip(model.levels, g_v, strict=True)]
    q = torch.cat([model.queries.expand(2, -1, -1), torch.stack(q_v, dim=1)], dim=1)
    with torch.no_grad():
        assert torch.equal(model(x_v, g_v), model.project(model.norm_out(q)))


def test_a_fresh_connector_learns_from_patches_within_two_steps() -> None:
    """Zero matrices at the ends of the branches do not block what lies before them."""
    torch.manual_seed(0)
    model = build(tiny(), seed=3)[0].connector
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x_v, g_v = torch.randn(2, 9, 32, requires_grad=True), [torch.randn(2, 32) for _ in model.level_widths]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(2):
        optimizer.zero_grad()
        x_v.grad = None
        model(x_v, g_v).square().sum().backward()
        optimizer.step()
    assert x_v.grad is not None
    assert x_v.grad.abs().sum() > 0
    # A bias of all keys changes no softmax.
    still = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert all(name.endswith("key.bias") for name in still)


def test_last_token_is_the_last_level_and_nothing_else() -> None:
    torch.manual_seed(0)
    model = LastTokenConnector(level_widths=(4, 6, 9), out_width=OUT).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    patches = torch.randn(2, 4, PATCH, dtype=torch.float64, requires_grad=True)
    levels = [torch.randn(2, w, dtype=torch.float64, requires_grad=True) for w in (4, 6, 9)]
    out = model(patches, levels)
    assert out.shape == (2, model.tokens, OUT) == (2, 1, OUT)
    p = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    last = levels[-1].detach().numpy()
    np.testing.assert_allclose(out[:, 0].detach().numpy(), linear(p, "project", norm(p, "norm_out", last)), atol=1e-12)
    out.sum().backward()
    assert levels[2].grad is not None
    assert patches.grad is levels[0].grad is levels[1].grad is None


@pytest.mark.parametrize(("kind", "tokens"), [("last_token", 1), ("gac", 4 + 2 * 3)])
def test_kind_is_saved_with_the_model(tmp_path: Path, kind: str, tokens: int) -> None:
    model, processor = build(tiny(f"model.connector.kind={kind}"), seed=1)
    assert processor.image_tokens == model.connector.tokens == tokens
    save(model, processor, tmp_path / "m")
    again, other = load(tmp_path / "m")
    assert type(again.connector) is type(model.connector)
    shown = faces(3)
    # Not to the bit: kernels may choose by where in memory the weights lie.
    np.testing.assert_allclose(Judge(model, processor).judge(shown), Judge(again, other).judge(shown), atol=1e-6)


def test_a_model_that_was_saved_before_there_was_a_choice_answers_as_it_did(tmp_path: Path) -> None:
    before = ("model.connector.patch_norm=own", "model.connector.level_linear=shared")
    model, processor = build(tiny(*before), seed=1)
    save(model, processor, tmp_path / "m")
    told = json.loads((tmp_path / "m" / "config.json").read_text())
    for name in ("patch_norm", "level_linear"):
        del told["connector"][name]
    (tmp_path / "m" / "config.json").write_text(json.dumps(told))
    again, other = load(tmp_path / "m")
    assert again.connector.patch_norm == "own"
    shown = faces(3)
    np.testing.assert_allclose(Judge(model, processor).judge(shown), Judge(again, other).judge(shown), atol=1e-6)


def test_models_saved_without_a_kind_have_gac_and_an_unknown_kind_is_refused() -> None:
    sizes = {"queries": 2, "layers": 1, "heads": 1, "width": 4, "mlp_ratio": 2.0, "dropout": 0.0}
    widths = {"level_widths": (4, 6), "patch_width": PATCH, "out_width": OUT}
    assert new_connector(sizes, **widths).tokens == 2 + 2
    with pytest.raises(ConfigError, match="q-former"):
        new_connector({**sizes, "kind": "q-former"}, **widths)
