"""Who runs this process."""

from __future__ import annotations

import os
import pwd

#: After a name that nothing proves.
UNVERIFIED = " (unverified)"


def account() -> str:
    """The account that this process runs as, by the operating system. It proves nothing to another machine."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's user may have no name
        name = f"uid {uid}"
    return f"{name}{UNVERIFIED}"
