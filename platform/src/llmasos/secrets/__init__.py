"""The key of the home, and what is encrypted with it: secrets, and what people give to apps and get of them."""

from llmasos.secrets.sealing import KEY_FILE, KeyChanged, Sealer
from llmasos.secrets.service import SecretOwner, Secrets

__all__ = ["KEY_FILE", "KeyChanged", "Sealer", "SecretOwner", "Secrets"]
