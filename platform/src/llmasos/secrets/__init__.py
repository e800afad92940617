"""Secrets that the host uses for people and never shows: keys of models, and what apps' requests carry."""

from llmasos.secrets.service import SecretOwner, Secrets

__all__ = ["SecretOwner", "Secrets"]
