"""The secrets' key under a passphrase: scrypt (RFC 7914) makes a key of it, AES-256-GCM encrypts.

The parameters are fixed by the format, so that no backup can ask for more work or memory than this. The rest of the
manifest is authenticated with the key: a backup whose rows or files were changed does not open.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from llmasos.backup.archive import SealedKey
from llmasos.errors import Denied

# 64 MiB and a fifth of a second per guess: the advice of RFC 7914 and OWASP if nobody waits at a login.
_COST: Final = 1 << 16
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12


class WrongPassphrase(Denied):
    """The passphrase is wrong, or the backup was changed after it was made."""

    code = "wrong-passphrase"


def seal(key: bytes, passphrase: str, authenticated: bytes) -> SealedKey:
    """Encrypt a key.

    Args:
        key: The secrets' key.
        passphrase: The operator's passphrase.
        authenticated: Data that must stay unchanged, authenticated with the key.
    """
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    ciphertext = AESGCM(_derived(passphrase, salt)).encrypt(nonce, key, authenticated)
    return SealedKey(salt.hex(), nonce.hex(), ciphertext.hex())


def unseal(sealed: SealedKey, passphrase: str, authenticated: bytes) -> bytes:
    """Decrypt a key.

    Raises:
        WrongPassphrase: The passphrase differs, or something was changed.
    """
    try:
        salt, nonce, ciphertext = (bytes.fromhex(part) for part in (sealed.salt, sealed.nonce, sealed.ciphertext))
        return AESGCM(_derived(passphrase, salt)).decrypt(nonce, ciphertext, authenticated)
    except (InvalidTag, ValueError) as error:
        raise WrongPassphrase from error


def _derived(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_COST, r=8, p=1).derive(passphrase.encode())
