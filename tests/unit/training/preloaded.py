"""What every rank imports. The server that ranks are forked from imports it once."""

from ifas.core.environment import prepare

prepare()

from ifas.training import loop  # noqa: F401
from ifas.training.engine import _deepspeed

_deepspeed()
