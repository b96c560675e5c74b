"""The GPU benchmark's own code, run on a CPU and without the libraries that a new GPU machine does not have."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_without_a_gpu_nothing_is_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu"])
    assert gpu.main() == 0
    assert json.loads(capsys.readouterr().out) == {"name": "gpu", "value": None, "why": "no GPU: not measured"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "parts"),
    [
        (("peft", "deepspeed", "ray", "pandas", "sklearn"), "plain judge deepspeed"),
        ((), "plain compiled judge deepspeed"),
    ],
)
def test_the_whole_script_on_a_cpu(missing: tuple[str, ...], parts: str) -> None:
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"
        f"sys.argv[1:] = '--profile tiny --device cpu --tries 1 --parts {parts}'.split()\n"
        "from benchmarks.gpu import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = {line["name"]: line for line in map(json.loads, filter(lambda x: x[:1] == "{", done.stdout.splitlines()))}
    adapter = "ALoRE" if missing else "LoRA"
    assert figures[f"training tiny, {adapter}, batch 4"]["value"] > 0
    for name in (f"training tiny, {adapter}, batch 4: peak memory", "judge tiny, 64 at once: peak memory"):
        assert 0.85 < figures[name]["ratio"] < 1.1, name
    against = [name for name in figures if name.endswith("against the plain loop")]
    assert len(against) == (0 if missing else 2)
