"""Errors a user can act on: what was wrong, where, and how to fix it."""

#: Exit code of the `ifas` command -> what it means. docs/cli.md shows this table.
EXIT_CODES: dict[int, str] = {
    0: "done; also where a candidate waits for a person's decision",
    1: "a bug of ifas, or a process that ended without an error message; the message names a file with the details",
    2: "wrong use: an option, the configuration, a policy, or a ledger that can't be used",
    3: "data that can't be used: a dataset, a registry, a file that is damaged or missing",
    4: "a blocking rule of data validation failed",
    5: "training could not go on",
    6: "the candidate's state forbids what was asked, such as packaging one that is not approved",
    7: "a server, a cluster or a service did not answer or failed",
    8: "the run is complete, but its model is refused: by the gate, or by a person",
    9: "this machine refused: no disk space, no right to write, no memory, a file where a folder is needed",
    130: "interrupted with Ctrl-C",
}


class IfasError(Exception):
    """Base of every error ifas raises on purpose. The CLI prints it without a traceback and exits with `exit_code`.

    Args:
        what: one sentence naming the thing that is wrong and where it is.
        fix: one imperative sentence: how to go on.
    """

    exit_code = 1
    #: Whether the same may succeed another time: not what its user has to correct, but what failed around it.
    repeat = False

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


class StoreAway(DataError):
    """An object store that does not answer."""

    repeat = True


class RegistryError(DataError):
    """The dataset registry or its remote: an unknown revision, a remote that is down."""


class DamagedFile(DataError, ValueError):
    """A file that does not hold what ifas writes there, such as truncated JSON."""


class CorruptShardError(DataError):
    """A shard whose bytes do not match the hash in the dataset's index."""


class ImageRefused(DataError):
    """One image that is not decoded: truncated, too large, or of a format that is not accepted.

    `reason` is a stable name of the kind of refusal, for programs; the words of the message may change.
    """

    reason = "unreadable"


#: Reason of a refusal because of the face -> what it says.
FACE_REASONS: dict[str, str] = {
    "no_face": "no face was found in the image",
    "several_faces": "there are several faces of like size in the image",
    "face_too_small": "the face is too small in the image",
    "blurred": "the face is too blurred",
    "turned_away": "the face is turned away from the camera",
}


class FaceRefused(ImageRefused):
    """One image that is decoded but has no face that can be judged.

    Args:
        reason: a key of FACE_REASONS.
        what, fix: where they say more than FACE_REASONS.
    """

    def __init__(self, reason: str, what: str = "", fix: str = "") -> None:
        super().__init__(what or FACE_REASONS[reason], fix or "send a sharp image of one face that looks ahead")
        self.reason = reason


class ValidationFailed(IfasError):
    """A blocking data validation rule failed."""

    exit_code = 4


class TrainingError(IfasError):
    """Training could not go on (all retries spent, NaN, a batch that needs more memory than there is)."""

    exit_code = 5


class GateError(IfasError):
    """A promotion action that the candidate's state or the policy forbids."""

    exit_code = 6


class NotApproved(GateError):
    """A candidate that is not approved was to be packaged."""


class StaleCandidate(GateError):
    """A candidate was to be approved that the gate judged against a champion, or by a policy, that is replaced."""


class ModelRefused(IfasError):
    """A complete run whose model the gate refused, or a person rejected: there is nothing to package."""

    exit_code = 8


class MachineError(IfasError):
    """This machine does not let ifas work: no disk space, no right to write, no memory."""

    exit_code = 9
    repeat = True


class TrainingNeedsSpace(MachineError):
    """The disk is smaller than what a training will write: another pod of the same size has no more."""

    repeat = False


class LaunchError(IfasError):
    """A remote job (RayJob, KFP run) could not be submitted or failed, or a server can't be started or reached."""

    exit_code = 7
    repeat = True


def unknown_key(kind: str, key: str, known: object) -> ConfigError:
    """The error of a registry look-up: names the key and lists what is known."""
    names = ", ".join(sorted(str(k) for k in known))  # type: ignore[attr-defined]
    return ConfigError(f"unknown {kind} {key!r}", f"use one of: {names}")
