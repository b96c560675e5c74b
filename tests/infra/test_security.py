"""SECURITY.md says that reading a file never runs code from it: the source has no call that would."""

import ast
from pathlib import Path

import pytest

IFAS = Path(__file__).parents[2] / "ifas"
#: Functions that run what a file says, whatever their arguments.
UNSAFE = {"pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "marshal.loads", "shelve.open", "dill.load"}
UNSAFE |= {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec", "os.system", "pandas.read_pickle"}


def offending(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        said = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if name in UNSAFE or (name == "torch.load" and said.get("weights_only") != "True"):
            found.append(name)
        found += [f"{k}={v}" for k, v in said.items() if k in ("trust_remote_code", "allow_pickle") and v != "False"]
        found += [f"{k}={v}" for k, v in said.items() if k in ("shell", "use_safetensors") and v != str(k != "shell")]
        if name.endswith(".from_pretrained") and name.startswith("Auto") and "trust_remote_code" not in said:
            found.append(f"{name} without trust_remote_code")
    return found


def test_nothing_that_is_read_runs_code() -> None:
    found = {str(p.relative_to(IFAS)): bad for p in sorted(IFAS.rglob("*.py")) if (bad := offending(p.read_text()))}
    assert not found


@pytest.mark.parametrize(
    "line", ["torch.load(f)", "torch.load(f, weights_only=False)", "pickle.load(f)", "AutoConfig.from_pretrained(d)"]
)
def test_the_search_finds_what_it_looks_for(line: str) -> None:
    assert offending(line)
