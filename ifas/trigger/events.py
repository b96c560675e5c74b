"""The events that are understood, and how one is read from an HTTP request (CloudEvents 1.0, structured or binary).

A type's data is a closed record of short, plain values: nothing of an event is ever parsed a second time, as YAML, as
an override or by a shell.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ifas.core.config import first_problem

#: How far a sender's clock may be ahead. A later time is refused: it would make the events that follow look old.
SKEW = timedelta(minutes=5)
#: An earlier time is a mistake; in the first and last years there are times that can't be told in UTC.
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
STRUCTURED = "application/cloudevents+json"
#: An attribute, and a header that carries one: printable ASCII.
_ATTRIBUTE = r"^[\x21-\x7e]+$"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
#: A commit, tag or branch; no option of git's, no range, no path upwards.
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9](\.?[A-Za-z0-9_/-])*$", max_length=200)]
Species = Annotated[str, Field(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=100)]
Artifact = Annotated[
    str, Field(pattern=r"^(s3|gs|minio)://[a-z0-9][a-z0-9.-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$", max_length=500)
]
#: Words for people on one line, such as a name.
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=200)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
CandidateId = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]


class Data(BaseModel, ABC):
    """What an event says. `about` is what it is about: of several events on one thing, the newest counts."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @property
    @abstractmethod
    def about(self) -> str:
        """A dataset, or a candidate."""


class _OfDataset(Data):
    dataset: Name
    revision: Revision

    @property
    def about(self) -> str:
        """The dataset."""
        return self.dataset


class DatasetRevised(_OfDataset):
    """The registry has a new revision of a dataset."""


class SpeciesReleased(_OfDataset):
    """A quarantined species was released for training, by that revision."""

    species: Species


class DriftDetected(_OfDataset):
    """A measure left its bounds on what is served; the revision is the one to train on."""

    measure: Name
    value: Annotated[float, Field(allow_inf_nan=False)]
    bound: Annotated[float, Field(allow_inf_nan=False)]


class _OfCandidate(Data):
    candidate: CandidateId
    product: Line | None = None
    actor: Line | None = None
    evidence_sha256: Sha256 | None = None

    @property
    def about(self) -> str:
        """The candidate."""
        return self.candidate


class CandidateApproved(_OfCandidate):
    """A person, or the policy, approved a candidate. The artifacts are those that its run left."""

    record: Artifact
    model: Artifact
    evaluation: Artifact
    lineage: Artifact


class CandidateChanged(_OfCandidate):
    """A candidate came to another state. Its run's artifacts are told where they lie in an object store."""

    record: Artifact | None = None
    model: Artifact | None = None
    evaluation: Artifact | None = None
    lineage: Artifact | None = None


#: Type of an event -> its data. To add a type, add a line.
TYPES: dict[str, type[Data]] = {
    "dev.ifas.dataset.revised": DatasetRevised,
    "dev.ifas.species.released": SpeciesReleased,
    "dev.ifas.drift.detected": DriftDetected,
    "dev.ifas.candidate.approved": CandidateApproved,
    **{
        f"dev.ifas.candidate.{state}": CandidateChanged
        for state in ("pending", "refused", "rejected", "superseded", "revoked", "expired")
    },
}


class Envelope(BaseModel):
    """The attributes of an event. All of these are required, `time` too: it says which of two events is newer."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[str, Field(pattern=_ATTRIBUTE, max_length=200)]
    source: Annotated[str, Field(pattern=_ATTRIBUTE, max_length=300)]
    type: Annotated[str, Field(pattern=_ATTRIBUTE, max_length=200)]
    time: datetime


@dataclass(frozen=True)
class Event:
    """An event whose envelope and data are valid."""

    envelope: Envelope
    data: Data


class Unreadable(ValueError):
    """A request that holds no CloudEvent."""


class Invalid(ValueError):
    """A CloudEvent that is not acted on: unknown type, wrong data, a time in the future or before 2000."""


def is_binary(headers: Mapping[str, str]) -> bool:
    """Whether the attributes are in the headers. Otherwise they are in the body, with the data."""
    return any(name.startswith("ce-") for name in headers)


def read(headers: Mapping[str, str], body: bytes) -> tuple[Envelope, Any]:
    """Envelope and raw data of the event in a request.

    Args:
        headers: names in lower case.

    Raises:
        Unreadable: there is none.
    """
    from cloudevents.core.bindings.http import HTTPMessage, from_http
    from cloudevents.core.exceptions import BaseCloudEventException
    from cloudevents.core.formats.json import JSONFormat
    from cloudevents.core.v1.event import CloudEvent

    def complete(attributes: dict[str, Any], data: Any) -> CloudEvent:
        # The library makes up an id and a time where there is none: no two events would be equal.
        missing = [name for name in ("specversion", *Envelope.model_fields) if name not in attributes]
        if missing:
            raise Unreadable(f"{' and '.join(missing)} missing")
        return CloudEvent(attributes, data)

    try:
        event = from_http(HTTPMessage(dict(headers), body), JSONFormat(), complete)
        envelope = Envelope.model_validate(
            {"id": event.get_id(), "source": event.get_source(), "type": event.get_type(), "time": event.get_time()}
        )
    except ValidationError as error:
        raise Unreadable(first_problem(error)) from error
    except RecursionError as error:
        raise Unreadable("JSON is nested too deeply") from error
    except (BaseCloudEventException, ValueError, TypeError, AttributeError) as error:
        raise Unreadable(f"not a CloudEvent of version 1.0: {error}") from error
    return envelope, event.get_data()


def checked(envelope: Envelope, data: Any, now: datetime) -> Event:
    """The event, valid.

    Raises:
        Invalid: it is not acted on.
    """
    kind = TYPES.get(envelope.type)
    if kind is None:
        raise Invalid(f"type {envelope.type} is not known; known are {', '.join(TYPES)}")
    if envelope.time > now + SKEW:
        raise Invalid(f"time {envelope.time.isoformat()} is in the future; it is {now.astimezone(UTC).isoformat()}")
    if envelope.time < EARLIEST:
        raise Invalid(f"time {envelope.time.isoformat()} is before {EARLIEST.year}")
    try:
        return Event(envelope, kind.model_validate(data))
    except ValidationError as error:
        raise Invalid(f"data: {first_problem(error)}") from error
