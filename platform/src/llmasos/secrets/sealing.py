"""The key of a home, and what is encrypted with it.

The key is a file of the home that only its owner reads. Who copies the database alone has nothing; who reads the whole
home has everything, as with any key that a machine must use unattended.
"""

from __future__ import annotations

import base64
import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from llmasos.errors import Unavailable
from llmasos.i18n import _

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_FILE: Final = "secret.key"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class KeyChanged(Unavailable):
    """This was encrypted under another key than `secret.key` in the home: put that key back from a backup."""

    code = "key-changed"


def home_key(path: Path) -> bytes:
    """The key in a file, made if it is missing; 32 bytes in URL-safe base64, as Fernet takes it.

    Raises:
        OSError: It cannot be read or made.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    # Written whole under another name and linked into place, so that no process ever reads half a key, and of two
    # that make one at once the first wins.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".secret-") as file:  # mode 0600
        file.write(base64.urlsafe_b64encode(os.urandom(_KEY_BYTES)))
        file.flush()
        os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(file.name, path)
    return path.read_bytes()


class Sealer:
    """Encrypts what people give to apps and get of them: AES-256-GCM under keys derived from the home's by HKDF.

    What a ciphertext is about (an invocation's id) is authenticated, so that none passes for another's; it has a key of
    its own too, so that random nonces never meet, however many there are.
    """

    def __init__(self, read_key: Callable[[], bytes]) -> None:
        """Use the key that `read_key` returns, read when it is first needed."""
        self._read_key = read_key
        self._key: bytes | None = None

    @classmethod
    def in_home(cls, home: Path) -> Self:
        """With the key of a home."""
        return cls(lambda: home_key(home / KEY_FILE))

    def seal(self, content: bytes, about: str) -> bytes:
        """Encrypt.

        Args:
            content: What nobody else may read.
            about: What it belongs to; `unseal` needs the same.

        Raises:
            Unavailable: The key cannot be read or made.
        """
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher(about).encrypt(nonce, content, about.encode())

    def unseal(self, sealed: bytes, about: str) -> bytes:
        """Decrypt.

        Raises:
            KeyChanged: It was encrypted under another key, about something else, or was changed.
            Unavailable: The key cannot be read or made.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415

        try:
            return self._cipher(about).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about.encode())
        except (InvalidTag, ValueError):
            raise KeyChanged from None

    def _cipher(self, about: str) -> AESGCM:
        # A command that keeps and reads nothing spares these.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

        if self._key is None:
            self._key = self._decoded()
        return AESGCM(HKDF(SHA256(), _KEY_BYTES, salt=None, info=f"llmasos {about}".encode()).derive(self._key))

    def _decoded(self) -> bytes:
        try:
            key = base64.urlsafe_b64decode(self._read_key())
        except OSError as error:
            raise Unavailable(
                _("The home's {name} cannot be read or made: {reason}.", name=KEY_FILE, reason=error.strerror or error)
            ) from error
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise Unavailable(_("The home's {name} is damaged: put it back from a backup.", name=KEY_FILE))
        return key
