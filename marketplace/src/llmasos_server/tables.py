"""Imports every table of the host and the marketplace, so that the metadata is complete."""

from llmasos import tables as host_tables
from llmasos_marketplace.catalog import tables as catalog_tables
from llmasos_server.accounts import tables as account_tables

__all__ = ["account_tables", "catalog_tables", "host_tables"]
