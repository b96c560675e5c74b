"""Predicted sizes against what torch and DeepSpeed really compute and hold."""

import gc
import json
import multiprocessing
import os
import socket
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from tiny_model import CAPTIONS, DINOV2, faces
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from ifas.cli.main import app
from ifas.core.config import RunConfig, load
from ifas.model import tuning
from ifas.model.build import build
from ifas.model.loss import lopsided
from ifas.model.memory import training_memory
from ifas.model.sizing import Device, lengths, size, will_not_fit

GIB = 2**30
#: Wide enough that matrix products count, small enough for a CPU.
SMALL = (
    "model.vision.shape.hidden_size=64",
    "model.vision.shape.intermediate_size=256",
    "model.connector.width=64",
    "model.language.shape.hidden_size=128",
    "model.language.shape.intermediate_size=512",
    "model.max_answer_tokens=24",
)
TUNES = {
    "full": (),
    "frozen tower, LoRA": ("model.vision.tune=frozen", "model.language.tune=lora"),
    "ALoRE everywhere": tuple(f"model.{part}.tune=alore" for part in tuning.PARTS),
    "connector only": ("model.vision.tune=frozen", "model.language.tune=frozen"),
    "SigLIP": ("model.vision.kind=siglip",),
    "DINOv2": DINOV2,
    "kept features": (
        "model.vision.tune=frozen",
        "model.language.tune=lora",
        "train.versions=1",
        "train.features=true",
    ),
}


def real_batch(config: RunConfig) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A model with weights under training, and a batch of the longest samples."""
    model, processor = build(config.model)
    tuning.prepare(model, config.model)
    n = config.train.batch
    images = [processor.views(p) for p in faces(n)]
    return model.train(), processor.batch(images, [i % 2 == 0 for i in range(n)], [" ".join(CAPTIONS * 3)] * n)


@pytest.mark.parametrize("tune", TUNES)
def test_flops_are_those_of_torchs_counter(tune: str) -> None:
    config = load("tiny", [*SMALL, *TUNES[tune]])
    model, batch = real_batch(config)
    sizes = size(config.model, config.train)
    tokens = sizes["tokens"]
    assert batch["input_ids"].shape[1] == tokens["prompt"] + tokens["answer"]
    pixels = batch["pixel_values"]
    if config.train.features:
        batch["features"] = model.features(batch.pop("pixel_values"))  # type: ignore[operator]
    # torch's counter doesn't know the fused attention of a CPU, so it gets the plain one to count.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        out = model(**batch)
        forward = counter.get_total_flops()
        lopsided(out.sums, out.counts, 0.7).backward()
    backward = counter.get_total_flops() - forward
    told = sizes["training"]
    assert told["forward_flops_per_sample"] * config.train.batch == pytest.approx(forward, rel=0.02)
    assert told["backward_flops_per_sample"] * config.train.batch == pytest.approx(backward, rel=0.03)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.eval().prefill(pixels, batch["input_ids"][:, : tokens["prompt"]])  # type: ignore[operator]
    if "lora" not in str(TUNES[tune]) and "alore" not in str(TUNES[tune]):  # the judge has them merged
        judged = sizes["judge"]["flops_per_picture"] * config.train.batch
        assert judged == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_frozen_parts_cost_no_weight_gradients() -> None:
    """A backward pass takes two FLOPs per token and weight that it passes, two more where that weight is trained."""
    passes = {}
    for tune in ("frozen", "full"):
        overrides = ["model.vision.tune=frozen", f"model.language.tune={tune}", *SMALL]
        config = load("tiny", overrides)
        passes[tune] = size(config.model, config.train)["training"]
    shape = config.model.language.shape
    width, hidden, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    found = lengths(config.model, config.model.connector.queries + 3 * len(config.model.views))
    vocabulary = build(config.model)[0].language.config.vocab_size
    matrices = layers * (4 * width**2 + 3 * width * hidden)
    weight_gradients = 2 * (matrices * (found.prompt + found.answer) + vocabulary * width * found.answer)
    # A frozen head's input gradient is made in the forward pass; a trained head's logits again in the backward pass.
    head = 2 * vocabulary * width * found.answer
    forward, backward = (
        passes["full"][f"{way}_flops_per_sample"] - passes["frozen"][f"{way}_flops_per_sample"]
        for way in ("forward", "backward")
    )
    assert forward == pytest.approx(-head, rel=0.01)
    assert backward == pytest.approx(weight_gradients + 2 * head, rel=0.01)


@pytest.mark.parametrize("tune", ["full", "frozen tower, LoRA", "ALoRE everywhere"])
def test_activations_are_what_torch_allocates(tune: str) -> None:
    """The peak of torch's own allocator over forward and backward, read off its profiler."""
    config = load("tiny", [*SMALL, *TUNES[tune], "train.batch=8"])
    model, batch = real_batch(config)
    for p in model.parameters():
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))

    def step() -> None:
        out = model(**batch)
        lopsided(out.sums, out.counts, 0.7).backward()

    step()
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    live = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):  # type: ignore[union-attr]
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    assert size(config.model, config.train)["memory"]["0"]["activations"] == pytest.approx(peak, rel=0.1)


def test_a_compiled_layer_keeps_one_wide_map_less() -> None:
    """On a GPU, with LoRA: of its MLP, silu(gate) is not kept, as gate is. What LoRA multiplies is."""
    overrides = [*SMALL, *TUNES["frozen tower, LoRA"], "train.batch=8", "train.gpus_per_worker=1"]
    sizes = {}
    for compiled in ("false", "true"):
        config = load("tiny", [*overrides, f"train.compile={compiled}"])
        sizes[compiled] = size(config.model, config.train)
    shape, tokens = config.model.language.shape, sizes["true"]["tokens"]
    wide = 4 * 8 * (tokens["prompt"] + tokens["answer"]) * shape["intermediate_size"]
    kept = [sizes[compiled]["memory"]["0"]["activations"] for compiled in ("false", "true")]
    assert kept[0] - kept[1] == pytest.approx(wide * shape["num_hidden_layers"], rel=0.01)
    assert sizes["true"]["training"] == sizes["false"]["training"]


def held() -> int:
    """Bytes of all tensors of this process; buckets, which have pages only where they are written to, left out."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.device.type == "cpu":
            storage = thing.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
    return sum(size for size in storages.values() if size < 2 * 10**8)


def deepspeed_holds(ways: list[tuple[int, str]]) -> list[tuple[int, int]]:
    """Bytes held before the second optimizer step, and those predicted, per ZeRO stage and precision."""
    from ifas.training.engine import Engine, join

    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    found = []
    for stage, precision in ways:
        overrides = [
            f"train.zero_stage={stage}",
            f"train.precision={precision}",
            "train.workers=1",
            "train.average=0.9",
        ]
        config = load("tiny", [*SMALL, *TUNES["frozen tower, LoRA"], *overrides])
        join(config.train)
        before = held()
        model, batch = real_batch(config)
        inputs = sum(t.nbytes for t in batch.values())
        counted = tuning.count(model)["total"]
        engine = Engine(model, tuning.parameter_groups(model, config.model, 0.01), config.train)
        for step in range(2):
            engine.begin(step)
            sums, counts = engine.forward(batch)
            engine.deep.backward(lopsided(sums, counts, 0.7))
            del sums, counts
            if step == 0:
                engine.deep.step()
        told = training_memory(counted["parameters"], counted["trainable"], 0, config.train, stage).lasting
        found.append((held() - before - inputs, told))
        engine.deep.destroy()
        del engine, model, batch
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.slow
def test_weights_gradients_and_optimizer_are_what_deepspeed_holds() -> None:
    """In a process of its own: a process group lasts."""
    ways = [(stage, precision) for precision in ("fp32", "bf16") for stage in (0, 1, 2)]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(deepspeed_holds, ways).result()
    for way, (real, told) in zip(ways, found, strict=True):
        assert real == pytest.approx(told, rel=0.03), way


def test_zero_stages_share_what_they_say() -> None:
    train = load("tiny", ["train.workers=4", "train.precision=bf16"]).train
    held = {stage: training_memory(1000, 400, 70, train, stage) for stage in (0, 1, 2, 3)}
    assert [m.weights for m in held.values()] == [2000, 2000, 2000, 500]
    assert [m.gradients for m in held.values()] == [800, 800, 200, 200]
    assert [m.optimizer for m in held.values()] == [4800, 1200, 1200, 1200]
    averaging = train.model_copy(update={"average": 0.99})
    more = [training_memory(1000, 400, 70, averaging, s).optimizer - held[s].optimizer for s in held]
    assert more == [1600, 400, 400, 400]


@pytest.mark.parametrize(
    ("overrides", "device", "ways"),
    [
        (["train.workers=4"], 3_900_000, "train.zero_stage="),
        (["train.batch=64", "train.workers=1"], 8_000_000, "train.batch="),
        (["train.workers=1"], 600_000, "model.vision.tune=lora, or model.language.tune=lora"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_way_out(overrides: list[str], device: int, ways: str) -> None:
    config = load("tiny", overrides)
    sizes = size(config.model, config.train)
    error = will_not_fit(config.model, config.train, Device(device, "a test"), sizes)
    assert error is not None
    assert ways in str(error)
    assert will_not_fit(config.model, config.train, Device(64 * GIB, "a test"), sizes) is None


def test_a_smaller_batch_that_is_proposed_fits() -> None:
    config = load("tiny", ["train.batch=64", "train.workers=1"])
    device = Device(8_000_000, "a test")
    error = will_not_fit(config.model, config.train, device, size(config.model, config.train))
    batch = int(str(error).split("train.batch=")[1].split()[0])
    assert 1 <= batch < 64
    smaller = load("tiny", [f"train.batch={batch}", "train.workers=1"])
    assert will_not_fit(smaller.model, smaller.train, device, size(smaller.model, smaller.train)) is None


def test_large_is_described_in_seconds_without_a_download() -> None:
    """Processor time: this machine may be busy."""
    began = time.process_time()
    done = CliRunner().invoke(app, ["model", "describe", "-c", "large", "--json", "--memory-gib", "80"])
    assert done.exit_code == 0, done.output
    assert time.process_time() - began < 15
    sizes = json.loads(done.output)
    assert sizes["fits"]
    assert sizes["memory"]["2"]["weights"] == 2 * sizes["total"]["stored"]
    # A token costs two FLOPs a parameter of the language model's, and the picture comes on top.
    tokens = sizes["tokens"]["prompt"] + sizes["tokens"]["answer"]
    assert 2 * 7e9 * tokens < sizes["training"]["forward_flops_per_sample"] < 2.4 * 7.6e9 * tokens
    tight = CliRunner().invoke(app, ["model", "describe", "-c", "large", "--memory-gib", "22"])
    assert tight.exit_code == 0, tight.output
    assert "warning: training needs" in tight.output
    assert "train.zero_stage=3" in tight.output


def test_prompt_length_of_a_source_that_is_here(tmp_path: Path) -> None:
    model, processor = build(load("tiny").model)
    model.language.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    config = load("tiny", [f"model.language.source={tmp_path}", "model.language.shape={}"]).model
    found = lengths(config, processor.image_tokens)
    assert found.exact
    assert found.prompt == len(processor.prompt_ids)
    guessed = lengths(load("base").model, 7)
    assert not guessed.exact
