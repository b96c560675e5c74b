"""The ledger of a run's configuration, and what a run can't choose about it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from ifas.core.config import RunConfig
from ifas.core.errors import ConfigError, MachineError

if TYPE_CHECKING:
    from ifas.promotion.ledger import Ledger
    from ifas.promotion.products import Product, Products
    from ifas.promotion.witness import Witness

WITNESS_ENV = "IFAS_WITNESS"
ADMIN_KEY_ENV = "IFAS_ADMIN_KEY"
LEDGER_ID_ENV = "IFAS_LEDGER_ID"
GATE_KEY_ENV = "IFAS_GATE_KEY"
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def ledger_url(config: RunConfig) -> str:
    """The ledger's URL. `IFAS_LEDGER` overrides the configuration, so that no password has to be written there."""
    return os.environ.get("IFAS_LEDGER") or config.gate.ledger


def open_ledger(config: RunConfig) -> Ledger:
    """The ledger, with its witness. Raises as `Ledger`."""
    from ifas.promotion.ledger import Ledger

    return Ledger(ledger_url(config), witness(config) or "", admin_key(config), ledger_id(config), gate_key(config))


def open_products(config: RunConfig, *, make: bool = True) -> Products:
    """The products of the ledger, with its witness. Raises as `Products`."""
    from ifas.promotion.products import Products

    return Products(ledger_url(config), witness(config) or "", admin_key(config), ledger_id(config), make=make)


def product_of(config: RunConfig) -> Product | None:
    """The run's product as the ledger has it; None where there is no ledger yet, or none that can be reached.

    Raises:
        DataError: its products were altered.
    """
    from ifas.database.connection import exists
    from ifas.promotion.upgrade import LEDGER

    try:
        if not exists(ledger_url(config), LEDGER):
            return None
        products = open_products(config, make=False)
    except (ConfigError, MachineError):
        return None
    try:
        return products.get(config.gate.product)
    finally:
        products.close()


def witness(config: RunConfig) -> Witness | None:
    """Where the ledger's heads are kept; None where there is neither a witness nor a registry.

    `IFAS_WITNESS` overrides the configuration, which a run can choose. Without either it is the dataset registry's git
    repository, which takes heads when it can.
    """
    from ifas.data.heads import HeadsBranch
    from ifas.promotion.witness import Witness

    if uri := os.environ.get(WITNESS_ENV) or config.gate.witness:
        return Witness(uri)
    branch = HeadsBranch.of(config.ingest.registry, ledger_name(config))
    return Witness(branch, required=False) if branch else None


def ledger_name(config: RunConfig) -> str:
    """What a ledger is called where several keep their heads: its id, else where it is.

    A name that comes from outside of the ledger: who writes it anew can't choose another one.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    if known := ledger_id(config):
        return known
    try:
        url = make_url(ledger_url(config))
    except ArgumentError:
        return ""  # opening it says what is wrong, without its password
    if url.get_backend_name() == "sqlite":
        return f"{Path(url.database or '').absolute()} on {platform.node()}"
    server = url.host or str(url.query.get("host", ""))
    machine = platform.node() if server.startswith("/") or server in ("", *THIS_MACHINE) else ""
    return " ".join(filter(None, [f"{url.database} on {server}:{url.port or 5432}", machine]))


def admin_key(config: RunConfig) -> str:
    """The administrator's public key, PEM or a file of it. `IFAS_ADMIN_KEY` overrides the configuration."""
    return os.environ.get(ADMIN_KEY_ENV) or config.gate.admin_key


def ledger_id(config: RunConfig) -> str:
    """The ledger's id. `IFAS_LEDGER_ID` overrides the configuration."""
    return os.environ.get(LEDGER_ID_ENV) or config.gate.ledger_id


def gate_key(config: RunConfig) -> str:
    """Reference of the gate's private key. `IFAS_GATE_KEY`, a reference or the key as PEM, overrides it."""
    given = os.environ.get(GATE_KEY_ENV, "")
    return f"env:{GATE_KEY_ENV}" if "-----BEGIN" in given else given or config.gate.key
