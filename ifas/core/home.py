"""Where ifas keeps its own files: cache, converted weights, the local registry and ledger."""

import os
from pathlib import Path


def home() -> Path:
    """`$IFAS_HOME`, or `.ifas` in the current folder."""
    return Path(os.environ.get("IFAS_HOME", ".ifas"))
