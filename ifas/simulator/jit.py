"""The one way this package compiles a loop: numba, no GIL, compiled code kept on disk.

numba's disk cache looks only at the file a kernel stands in. A kernel therefore calls compiled functions of its own
module only; otherwise an edit elsewhere would leave stale machine code behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compiles `function` on its first call. Typed, as numba's own decorator is not.

    No fast-math: pictures must not depend on how a compiler reorders sums.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write: an installed package on a read-only disk, and no home
        compiled = numba.njit(**options)(function)
    return cast("Callable[P, R]", compiled)
