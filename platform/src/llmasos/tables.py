"""Imports every table of the host, so that the metadata is complete."""

from llmasos.capabilities import tables as capability_tables
from llmasos.database import leases as lease_tables
from llmasos.gateway import tables as gateway_tables
from llmasos.installs import tables as install_tables
from llmasos.invocations import tables as invocation_tables
from llmasos.kernel import tables as kernel_tables
from llmasos.quotas import tables as quota_tables
from llmasos.secrets import tables as secret_tables

__all__ = [
    "capability_tables",
    "gateway_tables",
    "install_tables",
    "invocation_tables",
    "kernel_tables",
    "lease_tables",
    "quota_tables",
    "secret_tables",
]
