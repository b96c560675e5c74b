"""Process-wide settings that must be made before a heavy library is imported."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SETTINGS = {
    # Otherwise the idle threads of two processes on two cores spin and block each other: measured 10x slower.
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    # A Ray that this process starts is reached by this machine alone (the name is Ray's; it reads it when imported).
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Telemetry off.
    "RAY_USAGE_STATS_ENABLED": "0",
    "BENTOML_DO_NOT_TRACK": "True",
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning",
}


def prepare() -> None:
    """Sets what the user has not set."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if not os.path.exists("/dev/nvidiactl"):
        # DeepSpeed probes for an accelerator at import and warns.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # Importing torch and transformers makes a million objects and no garbage; garbage collection took a fifth of it.
    gc.set_threshold(50_000, 20, 20)


@contextmanager
def hidden(package: str) -> Iterator[None]:
    """Inside the block, importing `package` fails: for a library that imports it only because it is installed."""
    there = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == package}
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
        sys.modules.update(there)


@contextmanager
def setting(name: str, value: str) -> Iterator[None]:
    """Inside the block, the environment variable `name` is `value`."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
