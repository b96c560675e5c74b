"""Who a request comes from by the headers of an OIDC proxy, which are believed from its own address only."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Protocol

from ifas.core.config import ReviewConfig
from ifas.review.accounts import NAME, ROLES, Account

log = logging.getLogger("ifas.review")


class Headers(Protocol):
    """A request's headers."""

    def getlist(self, key: str) -> Sequence[str]:
        """Every value of a header."""
        ...


def account_by_proxy(config: ReviewConfig, address: str, headers: Headers) -> Account | None:
    """The account that a proxy vouches for; None where it does not, or somebody else sent these headers.

    A header that comes twice says nothing: one of the two may be the client's own.
    """
    names = headers.getlist(config.proxy_header)
    if not names:
        return None
    if not _trusted(config.trusted_proxies, address):
        log.warning("headers of a proxy came from %s, which is none of review.trusted_proxies", address)
        return None
    groups = headers.getlist(config.proxy_groups)
    if len(names) != 1 or len(groups) > 1 or not NAME.fullmatch(names[0]):
        return None
    role = _role(config.roles, [one.strip() for one in (groups[0] if groups else "").split(",")])
    return Account(names[0], role) if role else None


def _trusted(networks: Sequence[str], address: str) -> bool:
    try:
        client = ip_address(address)
    except ValueError:
        return False
    return any(client in ip_network(one) for one in networks)


def _role(roles: Mapping[str, str], groups: Sequence[str]) -> str:
    """The highest role of these groups; empty: none."""
    return max((roles[one] for one in groups if one in roles), key=ROLES.index, default="")
