"""What authors write: it works, or is refused with the cure when the app is described."""

import functools
import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Dict, List  # noqa: UP035 (as authors write them)

import pytest

from llmasos_sdk import App, Context, Field, find_app
from llmasos_sdk.errors import AppFailed
from llmasos_sdk.testing import FakeContext


def app_of(source: str, tmp_path: Path, name: str = "authors_app") -> App:
    """The app of a source, imported as a runner imports it."""
    path = tmp_path / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return find_app(module)


@pytest.mark.parametrize(
    ("start", "hint"),
    [
        ("import llmasos_sdk", '"llmasos_sdk.Context"'),
        ("from __future__ import annotations\nimport llmasos_sdk as sdk\nimport llmasos_sdk", "sdk.Context"),
        ("from __future__ import annotations\nfrom llmasos_sdk import Context as Ctx\nimport llmasos_sdk", "Ctx"),
        ("from llmasos_sdk import Context as Ctx\nimport llmasos_sdk", "Ctx"),
        (
            "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nimport llmasos_sdk\n"
            "if TYPE_CHECKING:\n    from llmasos_sdk import Context",
            "Context",
        ),
    ],
)
def test_the_contexts_hint_is_what_it_names_and_not_how_it_is_written(start: str, hint: str, tmp_path: Path) -> None:
    """11-16: postponed, aliased and quoted hints of the context were refused."""
    function = f"@app.action\ndef f(ctx: {hint}, x: int = 1) -> int:\n    return x\n"
    source = f"{start}\napp = llmasos_sdk.App()\n{function}"
    app = app_of(source, tmp_path)
    (described,) = app.describe()
    assert described["input_schema"]["properties"] == {"x": {"type": "integer", "default": 1}}
    assert app.call("f", '{"x": 2}', FakeContext()) == "2"


@pytest.mark.parametrize("hint", ["int", '"int"', '"Contexts"'])
def test_a_first_parameter_that_takes_something_else_is_refused(hint: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="takes the context"):
        app_of(f"from llmasos_sdk import App\napp = App()\n@app.action\ndef f(x: {hint}): ...\n", tmp_path)


def described(function: Any) -> dict[str, Any]:
    app = App()
    app.action(name="f")(function)
    return app.describe()[0]  # type: ignore[return-value]


@dataclass
class Style:
    """How it is said."""

    tone: str = None  # type: ignore[assignment]
    words: int = 3


def test_a_default_of_none_makes_an_input_optional() -> None:
    """11-17: `x: str = None` was published, and each call without the input failed."""
    app = App()

    @app.action
    def f(
        ctx: Context,
        x: str = None,  # type: ignore[assignment]  # noqa: RUF013
        y: Annotated[int, Field(min=1, title="Why")] = None,  # type: ignore[assignment]  # noqa: RUF013
        style: Style = Style(),  # noqa: B008
    ) -> str:
        """F."""
        return f"{x} {y} {style.tone}"

    properties = app.describe()[0]["input_schema"]["properties"]
    assert properties["x"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert properties["y"]["title"] == "Why"
    assert properties["y"]["anyOf"][0] == {"type": "integer", "minimum": 1}
    assert properties["style"]["properties"]["tone"]["default"] is None
    assert app.call("f", "{}", FakeContext()) == '"None None None"'
    assert app.call("f", '{"x": null, "y": 2, "style": {"tone": null}}', FakeContext()) == '"None 2 None"'


def _too_small(ctx: Context, n: Annotated[int, Field(min=1)] = 0) -> str: ...
def _of_another_type(ctx: Context, n: int = "one") -> str: ...  # type: ignore[assignment]
def _not_among(ctx: Context, n: "Annotated[List[str], Field(max=1)]" = ["a", "b"]) -> str: ...  # noqa: B006, UP006
def _infinite(ctx: Context, n: float = float("inf")) -> str: ...
def _a_set(ctx: Context, n: list = {1}) -> str: ...  # type: ignore[assignment, type-arg]  # noqa: B006


@dataclass
class Wrong:
    n: list[int] = field(default_factory=lambda: ["a"])  # type: ignore[arg-type]


def _in_a_dataclass(ctx: Context, n: Wrong) -> str: ...


@pytest.mark.parametrize(
    "function", [_too_small, _of_another_type, _not_among, _infinite, _a_set, _in_a_dataclass], ids=lambda f: f.__name__
)
def test_a_default_that_does_not_fit_is_refused_when_the_app_is_described(function: Any) -> None:
    """11-17: what was published failed at each call without the argument."""
    with pytest.raises(TypeError, match="the default of 'n' does not fit its type hint"):
        described(function)


def test_bare_list_and_dict_of_typing_are_lists_and_objects() -> None:
    """11-20: `List` without what it holds ended in an IndexError."""
    app = App()

    @app.action
    def f(ctx: Context, a: List, b: Dict) -> List:  # type: ignore[type-arg]  # noqa: UP006
        """F."""
        return [*a, *b]

    (told,) = app.describe()
    assert told["input_schema"]["properties"] == {"a": {"type": "array"}, "b": {"type": "object"}}
    assert app.call("f", '{"a": [1], "b": {"c": 2}}', FakeContext()) == '[1, "c"]'


def test_a_generator_behind_a_decorator_streams() -> None:
    """11-20: the wrapper is no generator function, so its generator was the answer."""
    app = App()

    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def inner(*arguments: Any, **more: Any) -> Any:
            return function(*arguments, **more)

        return inner

    @app.action
    @logged
    def f(ctx: Context) -> Iterator[str]:
        """F."""
        yield "a"
        yield "b"

    @app.action
    def g(ctx: Context) -> Iterator[str]:
        """G."""
        return iter(["a", "b"])

    context = FakeContext()
    assert [action["streaming"] for action in app.describe()] == [True, True]
    assert [app.call(name, "{}", context) for name in "fg"] == ['"ab"', '"ab"']
    assert context.fake.chunks == ["a", "b", "a", "b"]


def test_a_generator_without_a_hint_may_return_anything() -> None:
    """11-20: it was promised a text, and each run failed after it had streamed."""
    app = App()

    @app.action
    def f(ctx: Context):  # type: ignore[no-untyped-def]
        """F."""
        yield "a"
        return {"n": 1}

    assert app.describe()[0]["output_schema"] == {}
    assert json.loads(app.call("f", "{}", FakeContext())) == {"n": 1}


FAILING = """
import json
import helpers_of_app
from llmasos_sdk import App, Context
app = App()

@app.action
def parse(ctx: Context, text: str) -> str:
    '''Parse.'''
    return str(json.loads(text))

@app.action
def help(ctx: Context) -> str:
    '''Help.'''
    return helpers_of_app.go()
"""


def test_an_error_names_the_authors_line_that_led_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11-18: an error inside a library was told with the library's line."""
    (tmp_path / "helpers_of_app.py").write_text("import json\n\n\ndef go():\n    return json.loads('{')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "helpers_of_app", raising=False)
    app = app_of(FAILING, tmp_path)
    with pytest.raises(AppFailed, match=r"JSONDecodeError: .* \(authors_app.py, line 10\)"):
        app.call("parse", '{"text": "{"}', FakeContext())
    with pytest.raises(AppFailed, match=r"JSONDecodeError: .* \(helpers_of_app.py, line 5\)"):
        app.call("help", "{}", FakeContext())


def test_beside_its_packages_an_apps_own_files_are_those_of_its_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11-18: a native app is installed into one folder with the packages that it needs."""
    (tmp_path / "helpers_of_app.py").write_text("def go():\n    raise ValueError('inside a package')\n")
    (tmp_path / "llmasos_app_x-1.dist-info").mkdir()
    (tmp_path / "llmasos_app_x-1.dist-info" / "RECORD").write_text("authors_app.py,sha256=x,1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "helpers_of_app", raising=False)
    app = app_of(FAILING, tmp_path)
    with pytest.raises(AppFailed, match=r"inside a package \(authors_app.py, line 15\)"):
        app.call("help", "{}", FakeContext())
