"""The catalogs: complete, in step with the sources, and all that another language needs."""

import ast
import gettext
import runpy
from pathlib import Path
from string import Formatter

import pytest
from babel.messages.catalog import Catalog
from tests.test_documentation import error_classes

import llmasos.i18n.catalogs as catalogs
from llmasos.i18n import _, environment_locale, languages, locale_of, negotiate, ngettext, render, verbatim

ROOT = Path(__file__).resolve().parents[3]
TOOL = runpy.run_path(str(ROOT / ".ci" / "messages"))
SOURCES = [path for folder in ("sdk/src", "platform/src", "marketplace/src") for path in (ROOT / folder).rglob("*.py")]


def test_every_catalog_is_complete_and_has_nothing_fuzzy_or_obsolete() -> None:
    """10, section 3: Chinese is complete."""
    wanted = TOOL["extract"]()
    assert len(wanted) > 900
    found = TOOL["catalogs"]()
    assert [file.parent.parent.name for file in found] == ["zh"]
    assert [fault for catalog in found.values() for fault in TOOL["faults"](catalog, wanted)] == []


def catalog_of(**entries: str) -> Catalog:
    catalog = Catalog(locale="zh", fuzzy=False)
    for id_, text in entries.items():
        catalog.add(id_, text)
    return catalog


def test_what_is_wrong_with_a_catalog_is_named() -> None:
    catalog = catalog_of(**{"a {x}": "甲 {x}", "b": "", "c {x}": "丙", "d {x}": "丁 {y}", "gone": "旧", "f": "己"})
    catalog["f"].flags.add("fuzzy")
    wanted = {"a {x}", "b", "c {x}", "d {x}", "e", "f", ("{count} g", "{count} gs")}
    assert sorted(TOOL["faults"](catalog, wanted)) == [
        "fuzzy: 'f'",
        "missing: 'e'",
        "missing: ('{count} g', '{count} gs')",
        "not in the sources: 'gone'",
        "not translated: 'b'",
        "other fields: 'c {x}'",
        "other fields: 'd {x}'",
    ]


@pytest.mark.parametrize("source", ['_(f"there is no {name}")', "_(text)", 'tr("a" + b)', 'ngettext("a", f"{x}")'])
def test_a_message_that_is_no_literal_is_refused(tmp_path: Path, source: str) -> None:
    (tmp_path / "module.py").write_text(source)
    with pytest.raises(SystemExit, match=r"module\.py:1: a message must be a literal"):
        TOOL["extract"]([tmp_path])


def fields(template: str) -> set[str]:
    return {name for _text, name, _form, _conversion in Formatter().parse(template) if name is not None}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_message_gets_the_parameters_that_it_names(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"_", "tr", "ngettext"}:
            templates = [each.value for each in node.args if isinstance(each, ast.Constant)]
            given = {keyword.arg for keyword in node.keywords}
            if templates and None not in given:
                assert set().union(*map(fields, templates)) == given, f"line {node.lineno}"


def test_the_compiled_catalog_says_what_its_source_says() -> None:
    """What runs is the compiled one; `uv sync` makes it anew when the source changed."""
    for file, source in TOOL["catalogs"]().items():
        compiled = gettext.translation("llmasos", catalogs.FOLDER, [file.parent.parent.name])
        for entry in source:
            if isinstance(entry.id, str) and entry.id:
                assert compiled.gettext(entry.id) == entry.string
            elif entry.id:
                assert compiled.ngettext(entry.id[0], entry.id[1], 1) == entry.string[0]


def test_every_errors_default_message_is_in_the_catalog() -> None:
    chinese = gettext.translation("llmasos", catalogs.FOLDER, ["zh"])
    missing = [each for each in error_classes() if chinese.gettext(each.default().id) == each.default().id]
    assert missing == []


@pytest.fixture
def polish(tmp_path: Path) -> Path:
    """A folder with one more catalog, compiled as the build compiles them."""
    file = tmp_path / "pl" / "LC_MESSAGES" / "llmasos.po"
    file.parent.mkdir(parents=True)
    file.write_text(
        'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n"Language: pl\\n"\n'
        '"Plural-Forms: nplurals=3; plural=(n==1 ? 0 : n%10>=2 && n%10<=4 && (n%100<12 || n%100>14) ? 1 : 2);\\n"\n\n'
        'msgid "There is no {name}."\nmsgstr "Nie ma {name}."\n\n'
        'msgid ", "\nmsgstr " oraz "\n\n'
        'msgid "{count} file"\nmsgid_plural "{count} files"\n'
        'msgstr[0] "{count} plik"\nmsgstr[1] "{count} pliki"\nmsgstr[2] "{count} plików"\n',
        encoding="utf-8",
    )
    TOOL["compile_"](tmp_path)
    return tmp_path


def test_another_language_is_one_more_catalog(polish: Path) -> None:
    """10, section 3: adding a catalog file adds a language."""
    assert languages(polish) == ("en", "pl")
    assert render(_("There is no {name}.", name=["x", "y"]), "pl-PL", polish) == "Nie ma x oraz y."
    assert render(_("It has no translation."), "pl", polish) == "It has no translation."
    assert negotiate("zh, pl;q=0.5, en;q=0.1", polish) == "pl"


@pytest.mark.parametrize(("count", "text"), [(1, "1 plik"), (2, "2 pliki"), (5, "5 plików"), (22, "22 pliki")])
def test_a_language_counts_in_its_own_way(polish: Path, count: int, text: str) -> None:
    assert render(ngettext("{count} file", "{count} files", count=count), "pl", polish) == text


def test_messages_within_messages_are_translated_and_foreign_words_are_not() -> None:
    inner = _("a whole number")
    assert render(_("it is {said}", said=inner), "zh") == "此处是整数"
    assert render(_("it is {said}", said="a whole number"), "zh") == "此处是a whole number"
    assert render(verbatim("Hello", zh="你好"), "zh") == "你好"
    assert render(verbatim("Hello", zh="你好"), "fr") == "Hello"


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9", "zh"),
        ("en-GB, zh;q=0.9", "en"),
        ("fr, de;q=0.9, zh;q=0.1", "zh"),
        ("fr", "en"),
        ("zh;q=0, en", "en"),
        ("zh;q=x", "en"),
        ("en;q=0.2, zh;q=0.8", "zh"),
        (",;=,", "en"),
    ],
)
def test_the_language_that_a_caller_prefers_is_chosen(header: str, language: str) -> None:
    assert negotiate(header) == language


@pytest.mark.parametrize(
    ("name", "language"),
    [("zh_CN.UTF-8", "zh"), ("ZH-tw", "zh"), ("zh", "zh"), ("C.UTF-8", "en"), ("", "en"), ("zhx", "en")],
)
def test_a_locales_language_is_known_by_its_first_part(name: str, language: str) -> None:
    assert locale_of(name) == language


def test_the_users_language_is_looked_for_as_posix_orders_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLMASOS_LOCALE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    assert environment_locale() == "en"
    for name, value, language in (("LANG", "zh_CN", "zh"), ("LC_ALL", "C", "en"), ("LLMASOS_LOCALE", "zh", "zh")):
        monkeypatch.setenv(name, value)
        assert environment_locale() == language


def plain(source: str, classes: set[str]) -> list[int]:
    """The lines where an error is made with a text of ours that is not a message."""
    lines: list[int] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            first = node.args[0]
            if name in classes and (isinstance(first, ast.JoinedStr | ast.BinOp) or _is_text(first)):
                lines.append(node.lineno)
    return lines


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('raise Invalid("no")', [1]),
        ('\nx = errors.Invalid(f"no {name}")', [2]),
        ('raise Invalid("no " + name)', [1]),
        ('raise Invalid(_("no"))', []),
        ("raise Invalid(error.message)", []),
        ("raise Invalid", []),
        ('raise ValueError("no")', []),
    ],
)
def test_an_error_in_plain_english_is_seen(source: str, lines: list[int]) -> None:
    assert plain(source, {"Invalid"}) == lines


def test_every_error_is_raised_with_a_message() -> None:
    """10, section 3: nothing that a person reads is in one language only."""
    classes = {each.__name__ for each in error_classes()}
    # The SDK has errors of the same names for authors, and the runner one that its process prints and dies of.
    others = {"llmasos_sdk", "llmasos_runner"}
    sources = [path for path in SOURCES if not others & set(path.parts) and path.name != "testing.py"]
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in sources
        for line in plain(path.read_text(encoding="utf-8"), classes)
    }
    assert found == set(), "mark its text with _()"
