"""Which network addresses an app's requests may reach, whatever a name resolves to.

`ssrfguard` resolves once, checks every address against a table, and connects to the address it checked, so that a
record that changes in between (DNS rebinding) has no effect. Its table is IANA's; the networks below are missing from
it.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, TypeAlias

from ssrfguard import DEFAULT_DENIED, AddressTable, Block, Policy, Reach

Network: TypeAlias = IPv4Network | IPv6Network

_EXTRA: Final = (
    # A public address that is, inside Azure, the host's own agent, which hands out credentials.
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
        # A name with a private address among public ones is an attack or a mistake: neither is followed.
        on_partial_block="reject",
    )
