"""The settings of a Bento: written when it is packaged, read when it starts, never changed."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ifas.core.calibration import Calibration
from ifas.core.config import TrafficConfig
from ifas.core.errors import ConfigError
from ifas.core.files import read_json, write_json
from ifas.core.imaging import ImageLimits

SETTINGS_FILE = "serving.json"
MODEL_DIR = "model"

#: Seconds after which a request is answered 504, body transfer and queueing included.
TIMEOUT_S = 60
#: Further seconds in which the client may read the answer.
READ_SECONDS = 10
#: Room for the multipart frame around the image.
FRAME_BYTES = 64 * 1024


class ServingSettings(BaseModel):
    """`serving.json` of a Bento."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    candidate: str
    model_version: str = Field(description="first 12 hex digits of model_sha256")
    model_sha256: str
    calibration: Calibration | None = Field(default=None, description="of the scores; none: the model's own")
    threshold: float = Field(ge=0, le=1, description="a score of at least this is live")
    question: str
    limits: ImageLimits
    traffic: TrafficConfig = TrafficConfig()
    publish_card: bool = False

    @property
    def max_body_bytes(self) -> int:
        """Largest request body."""
        return self.limits.max_bytes + FRAME_BYTES

    def write(self, folder: Path) -> None:
        """Writes `serving.json` into a folder."""
        write_json(folder / SETTINGS_FILE, self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Path) -> ServingSettings:
        """The settings in a folder.

        Raises:
            ConfigError: the file is missing or damaged.
        """
        file = folder / SETTINGS_FILE
        try:
            return cls.model_validate(read_json(file))
        except FileNotFoundError as error:
            raise ConfigError(
                f"no {SETTINGS_FILE} in {folder}", "serve a Bento that `ifas package` built, not the source tree"
            ) from error
        except (ValueError, ValidationError) as error:
            raise ConfigError(f"{file} is damaged: {error}", "package the candidate again") from error
