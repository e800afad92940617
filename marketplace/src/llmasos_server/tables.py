"""Every table there is, the host's and the marketplace's, imported so that the metadata is whole."""

from llmasos import tables as host_tables
from llmasos_marketplace.catalog import tables as catalog_tables
from llmasos_server.accounts import tables as account_tables

__all__ = ["account_tables", "catalog_tables", "host_tables"]
