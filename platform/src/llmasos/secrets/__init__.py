"""Secrets that the host uses on people's behalf and never shows: models' keys, and secrets in apps' requests."""

from llmasos.secrets.service import SecretOwner, Secrets

__all__ = ["SecretOwner", "Secrets"]
