"""What building a model takes: measured in a process of its own, with real weights on the disk."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ifas.core.config import load
from ifas.model.build import build
from ifas.model.small_tokenizer import small_tokenizer

#: Builds, casts as DeepSpeed does, reads every page; prints the growth of the largest resident size, in MiB.
MEASURE = """
import re, sys
from ifas.core.environment import prepare
prepare()
import torch, peft, transformers
from ifas.core.config import load
from ifas.model.build import build
# Not `ru_maxrss`, which begins with that of the process that started this one.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 2**10
small, config = load("tiny").model, load("tiny", [f"model.language.source={sys.argv[1]}"]).model
build(small, dtype=getattr(torch, sys.argv[2]))
before = peak()
model, _ = build(config, dtype=getattr(torch, sys.argv[2]))
model = model.to(torch.bfloat16)
for parameter in model.parameters():
    parameter.data.view(-1)[::1024].float().sum()
print(peak() - before)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A language model in bfloat16, and its size in MiB."""
    folder, tokenizer = tmp_path_factory.mktemp("language"), small_tokenizer()
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8, "num_attention_heads": 8}
    shape = AutoConfig.for_model("llama", vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes)
    model = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, sum(parameter.numel() for parameter in model.parameters()) * 2 / 2**20


def growth(folder: Path, dtype: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), dtype], check=True, capture_output=True, text=True, timeout=300
    )
    return float(done.stdout.split()[-1])


@pytest.mark.slow
def test_weights_are_read_in_the_precision_of_the_training(source: tuple[Path, float]) -> None:
    """A rank that trains in bfloat16 never holds a copy of its language model in float32."""
    folder, mib = source
    assert growth(folder, "bfloat16") < 1.2 * mib + 30
    assert growth(folder, "float32") > 2.5 * mib, "else the measurement shows nothing"


def test_the_precision_changes_no_weight_beyond_its_rounding() -> None:
    config = load("tiny").model
    one, _ = build(config, seed=3)
    other, _ = build(config, seed=3, dtype=torch.bfloat16)
    for name, weight in one.language.state_dict().items():
        assert torch.equal(other.language.state_dict()[name], weight.bfloat16())
    for name, weight in one.vision.state_dict().items():
        assert torch.equal(other.vision.state_dict()[name], weight)
