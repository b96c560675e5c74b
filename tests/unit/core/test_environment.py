"""Settings that hold only inside a block, and the imports that they save DeepSpeed."""

import json
import os
import subprocess
import sys

import pytest

from ifas.core.environment import hidden, setting


def test_a_hidden_package_is_back_afterwards_as_it_was() -> None:
    import json.decoder

    with hidden("json"), pytest.raises(ImportError):
        import json.encoder
    assert sys.modules["json"] is json
    assert sys.modules["json.decoder"] is json.decoder


@pytest.mark.parametrize("before", [None, "", "x"])
def test_a_setting_is_what_it_was_afterwards(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv("IFAS_TEST", raising=False)
    if before is not None:
        monkeypatch.setenv("IFAS_TEST", before)
    with pytest.raises(KeyError), setting("IFAS_TEST", "y"):
        assert os.environ["IFAS_TEST"] == "y"
        raise KeyError
    assert os.environ.get("IFAS_TEST") == before


def test_deepspeed_starts_without_what_only_its_unused_parts_import() -> None:
    code = (
        "import json, sys\n"
        "from ifas.core.environment import prepare\n"
        "prepare()\n"
        "from ifas.training.engine import _deepspeed\n"
        "_deepspeed()\n"
        "print(json.dumps([n for n in ('deepspeed', 'mlflow', 'torch._inductor.compile_fx') if n in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == ["deepspeed"]
