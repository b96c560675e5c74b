"""What the machine and libraries raise becomes an error with a code of its own; a mistake of ifas stays one."""

import errno
import json
import os

import pytest

from ifas.core.errors import DataError, IfasError, MachineError
from ifas.core.unforeseen import named


def raised(do: object) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
        do()  # type: ignore[operator]
    return caught.value


def test_errors_of_the_machine_and_of_files_are_named() -> None:
    missing = named(raised(lambda: os.open("/no/such/file", os.O_RDONLY)))
    assert isinstance(missing, MachineError)
    assert missing.what == "/no/such/file does not exist"
    full = named(OSError(errno.ENOSPC, "No space left on device", "/data/x"))
    assert full is not None
    assert "no space is left" in full.what
    assert isinstance(named(raised(lambda: json.loads("{"))), DataError)
    assert isinstance(named(MemoryError()), MachineError)
    mine = IfasError("x", "y")
    assert named(mine) is mine


@pytest.mark.parametrize("do", [lambda: os.open("", os.O_RDONLY), lambda: {}["key"], lambda: None + 1])
def test_a_mistake_of_ifas_is_not_blamed_on_the_machine(do: object) -> None:
    assert named(raised(do)) is None
