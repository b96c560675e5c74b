"""Errors a user can act on: what was wrong, where, and how to fix it."""


class IfasError(Exception):
    """Base of every error ifas raises on purpose. The CLI prints it without a traceback and exits with `exit_code`.

    Args:
        what: one sentence naming the thing that is wrong and where it is.
        fix: one sentence, imperative, that tells how to go on.
    """

    exit_code = 1

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what, fix)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\n  fix: {self.fix}" if self.fix else self.what


class ConfigError(IfasError):
    """A configuration, policy or profile that can't be used."""

    exit_code = 2


class DataError(IfasError):
    """A dataset, manifest, shard or image that can't be used."""

    exit_code = 3


class RegistryError(DataError):
    """The dataset registry or its remote: an unknown revision, a remote that is down."""


class CorruptShardError(DataError):
    """A shard whose bytes do not match the hash in the dataset's index."""


class ImageRefused(DataError):
    """One image that is not decoded: truncated, too large, or of a format that is not accepted.

    `reason` names the kind of refusal for programs; it stays the same when the words change.
    """

    reason = "unreadable"


class ImageWithoutDetail(ImageRefused):
    """One image that is decoded but shows a flat colour, a gradient or noise."""

    reason = "no_detail"


class ValidationFailed(IfasError):
    """A blocking data validation rule failed."""

    exit_code = 4


class TrainingError(IfasError):
    """Training could not go on (no disk space, all retries spent, NaN)."""

    exit_code = 5


class GateError(IfasError):
    """A promotion action that the candidate's state or the policy forbids."""

    exit_code = 6


class NotApproved(GateError):
    """A candidate that is not approved was to be packaged."""


class LaunchError(IfasError):
    """A remote job (RayJob, KFP run) could not be submitted or failed."""

    exit_code = 7


def unknown_key(kind: str, key: str, known: object) -> ConfigError:
    """The error of a registry look-up: names the key and lists what is known."""
    names = ", ".join(sorted(str(k) for k in known))  # type: ignore[attr-defined]
    return ConfigError(f"unknown {kind} {key!r}", f"use one of: {names}")
