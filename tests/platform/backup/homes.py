"""Homes with data, to back up and to restore into."""

import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sqlmodel import col, select

from llmasos.backup import archive
from llmasos.backup.restore import read_backup
from llmasos.backup.sealing import seal
from llmasos.bundles.testing import bundle_files, manifest_text
from llmasos.bundles.writer import write_bundle
from llmasos.database.engine import Database
from llmasos.database.schema import ensure_schema
from llmasos.database.transaction import Transaction
from llmasos.invocations import content
from llmasos.invocations.content import InvocationContent
from llmasos.kernel import audit
from llmasos.kernel.tables import AuditEntry
from llmasos.secrets import Sealer, SecretOwner, Secrets
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.catalog.store import BundleStore
from llmasos_marketplace.catalog.tables import Release
from llmasos_marketplace.catalog.testing import add_bundle

OWNER = SecretOwner("default", "you")
INVOCATION = "0b7d6c2e9a144d0f8a6f2f1c3f5e7a90"
PASSPHRASE = "a lamp, a lens, a long night"


class Home:
    """A home with a release, a secret, the input of an invocation, a setting and an audit log."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        folder.mkdir(exist_ok=True)

    def fill(self, tmp_path: Path) -> None:
        ensure_schema(self.url, self.folder)
        bundle = tmp_path / f"{self.folder.name}.llmapp"
        write_bundle(bundle_files(manifest_text("acme/greeter")), bundle)
        with Database(self.url) as database:
            add_bundle(Catalog(database, BundleStore(self.folder / "bundles")), bundle)
            with database.write() as session:
                Secrets(self.folder).set(session, OWNER, "api_key", "open sesame")
                sealed = InvocationContent('"what was said"').seal(Sealer.in_home(self.folder), INVOCATION)
                transaction = Transaction.of(session)
                content.keep(transaction, INVOCATION, "default", sealed or b"")
                transaction.flush()
        code = self.folder / "code" / ("a" * 64)
        code.mkdir(parents=True)
        (code / "app.wasm").write_bytes(b"\0asm")
        (self.folder / "config.toml").write_text('native_runners = 7\ndatabase_url = "sqlite:///elsewhere"\n')

    def contents(self) -> dict[str, object]:
        """Everything that must be restored."""
        with Database(self.url) as database, database.read() as session:
            entries = session.exec(select(AuditEntry).order_by(col(AuditEntry.hash))).all()
            return {
                "secret": Secrets(self.folder).value(session, OWNER, "api_key"),
                "content": content.read(session, Sealer.in_home(self.folder), INVOCATION),
                "audit": [entry.hash for entry in entries],
                "intact": audit.verify(session).intact,
                "releases": [
                    (row.version, row.digest, row.published_at.replace(tzinfo=None))
                    for row in session.exec(select(Release))
                ],
                "bundles": sorted(path.name for path in (self.folder / "bundles").glob("*.llmapp")),
                "code": sorted(path.parent.name for path in (self.folder / "code").glob("*/app.wasm")),
            }


def empty_home(tmp_path: Path) -> Home:
    folder = tmp_path / "restored"
    return Home(folder, f"sqlite:///{folder / 'llmasos.db'}")


def rewrite(
    backup: Path,
    tmp_path: Path,
    change: Callable[[archive.BackupManifest], archive.BackupManifest],
    contents: dict[str, bytes] | None = None,
) -> Path:
    """A backup with another manifest, and with other contents of some files."""
    with tarfile.open(backup) as tar:
        held = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    held.update(contents or {})
    manifest = change(read_backup(backup))
    manifest = replace(manifest, secrets_key=seal(b"k", PASSPHRASE, manifest.authenticated()))
    target = tmp_path / "rewritten.llmbackup"
    files = []
    for entry in manifest.files:
        path = tmp_path / f"part{len(files)}"
        path.write_bytes(held.get(entry.name, b"")[: entry.size_bytes].ljust(entry.size_bytes, b"\0"))
        files.append((entry, path))
    with target.open("wb") as file:
        archive.write(file, manifest, files)
    return target
