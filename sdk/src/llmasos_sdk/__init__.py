"""What an LLMasOS app is written with.

app.py         App, its actions, and how they are called by JSON
context.py     Context: the capabilities; model.py and storage.py are the large ones, results.py what they answer
schema.py      type hints as JSON Schema; decoding.py and encoding.py are JSON as typed values and back
errors.py      what can go wrong, one class a case of the contract
host.py        the port that carries every call; guest.py is it inside a component
hooks.py       the pluggy hooks by which a native runner loads an app
testing.py     fakes for an app's own tests; pytest_plugin.py has them as fixtures
"""

from llmasos_sdk.app import Action, App, find_app
from llmasos_sdk.context import Context
from llmasos_sdk.errors import (
    AnswerUnusable,
    AppError,
    AppFailed,
    Cancelled,
    CapabilityNotDeclared,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    PermissionDeclined,
    QuotaExceeded,
    SchemaMismatch,
    TimedOut,
    Unavailable,
)
from llmasos_sdk.fields import Field
from llmasos_sdk.files import File
from llmasos_sdk.model import Stream
from llmasos_sdk.results import Completion, Embeddings, Entry, Response, ToolCall, Usage

__all__ = [
    "Action",
    "AnswerUnusable",
    "App",
    "AppError",
    "AppFailed",
    "Cancelled",
    "CapabilityNotDeclared",
    "Completion",
    "Conflict",
    "Context",
    "Denied",
    "Embeddings",
    "Entry",
    "Field",
    "File",
    "Invalid",
    "NotFound",
    "PermissionDeclined",
    "QuotaExceeded",
    "Response",
    "SchemaMismatch",
    "Stream",
    "TimedOut",
    "ToolCall",
    "Unavailable",
    "Usage",
    "find_app",
]
