"""Which network addresses an app's requests may reach, whatever a name resolves to.

`ssrfguard` resolves once, holds every answer against a table, and connects to the address it judged, so that a record
that moves in between (DNS rebinding) changes nothing. Its table is IANA's; what follows is what that leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, TypeAlias

from ssrfguard import DEFAULT_DENIED, AddressTable, Block, Policy, Reach

Network: TypeAlias = IPv4Network | IPv6Network

_EXTRA: Final = (
    # A public address that inside Azure is the host's own agent, with credentials behind it.
    Block(ip_network("168.63.129.16/32"), "Azure platform agent", "none", Reach.DENIED),
    # IPv4-translated addresses (SIIT): an IPv4 destination behind a translator, loopback included.
    Block(ip_network("::ffff:0:0:0/96"), "IPv4-translated", "RFC 2765", Reach.DENIED),
)

DENIED: Final = AddressTable(
    (
        *DEFAULT_DENIED.blocks,
        *(block for block in _EXTRA if block.network not in {b.network for b in DEFAULT_DENIED.blocks}),
    )
)


def policy_for(port: int, allowed_networks: Iterable[Network] = ()) -> Policy:
    """What one request may connect to.

    Args:
        port: The port that the grant allows.
        allowed_networks: Private networks that the operator opened on purpose.
    """
    return Policy(
        denied_networks=DENIED,
        allowed_networks=tuple(allowed_networks),
        allowed_ports=frozenset({port}),
        # A name with one private answer among public ones is an attack or a mistake: neither is followed.
        on_partial_block="reject",
    )
