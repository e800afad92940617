"""Secrets that the host uses for people and never shows: keys of models, and what apps' requests carry."""

from llmasos.secrets.service import Secrets

__all__ = ["Secrets"]
