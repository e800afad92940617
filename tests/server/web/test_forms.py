"""Forms made from JSON Schemas, and the values read back."""

import io
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers, UploadFile

from llmasos.bundles.actions import Action
from llmasos.bundles.manifest import ConfigField, LocalisedText
from llmasos.invocations.actions import InputRejected, check_input
from llmasos_sdk.files import MAX_FILE_BYTES, File
from llmasos_server.web.form_values import Submitted, filled, read, sent_of
from llmasos_server.web.forms import Form, config_schema, form_of
from llmasos_server.web.page import _environment
from llmasos_server.web.shapes import shape_of


def schema_of(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}


def submit(schema: dict[str, Any], *items: tuple[str, Any]) -> Submitted:
    return read(shape_of(schema), sent_of(items))


def html_of(form: Form) -> str:
    template = _environment().from_string(
        '{% import "fields.html.jinja" as fields with context %}{{ fields.form(form) }}'
    )
    told = SimpleNamespace(locale="en")
    return template.render(form=form, view=told, _=lambda text, **each: text.format(**each), icon=lambda _name: "")


class Controls(HTMLParser):
    """What a browser would send of the HTML of a form, untouched."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sent: list[tuple[str, str]] = []
        self._area: str | None = None
        self._select: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "input" and (values.get("type") != "checkbox" or "checked" in values):
            self.sent.append((values["name"], values["value"]))
        elif tag == "select":
            self._select = values["name"]
            self.sent.append((values["name"], ""))
        elif tag == "option" and "selected" in values and self._select:
            self.sent[-1] = (self._select, values["value"])
        elif tag == "textarea":
            self._area = values["name"]
            self.sent.append((self._area, ""))

    def handle_data(self, data: str) -> None:
        if self._area:
            self.sent[-1] = (self._area, data.removeprefix("\n"))

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._area = None


EVERY_KIND = schema_of(
    ("text", "person", "tags"),
    text={"type": "string", "x-ui": "textarea"},
    name={"type": "string", "x-ui": "text", "default": "Ann"},
    maybe={"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    count={"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
    ratio={"type": "number", "default": 0.5},
    language={"type": "string", "enum": ["en", "zh"], "default": "en"},
    level={"enum": [1, "1", True], "default": "1"},
    loud={"type": "boolean", "default": True},
    sure={"anyOf": [{"type": "boolean"}, {"type": "null"}], "default": None},
    day={"type": "string", "format": "date", "default": "2026-11-28"},
    at={"type": "string", "format": "date-time", "default": "2026-11-28T09:30:00Z"},
    person=schema_of(("name",), name={"type": "string"}, **{"a/b~c": {"type": "integer", "default": 1}}),
    tags={"type": "array", "items": {"type": "string"}},
    people={"type": "array", "items": {"$ref": "#/$defs/person"}, "default": []},
    extra={"default": {"a": [1]}},
) | {"$defs": {"person": schema_of(("name",), name={"type": "string"})}}
VALUE = {
    "text": '\nline one\nline <two> & "three"',
    "name": "Bob",
    "maybe": None,
    "count": 5,
    "ratio": 1.25,
    "language": "zh",
    "level": 1,
    "loud": False,
    "sure": False,
    "day": "2026-01-02",
    "at": "2026-11-28T09:30:00Z",
    "person": {"name": "Eve", "a/b~c": 7},
    "tags": ["one", "two"],
    "people": [{"name": "Ann"}, {"name": "Zoë"}],
    "extra": [None, {"b": "ü"}],
}


def test_what_a_form_shows_comes_back_as_it_was() -> None:
    """12-6: one renderer, to HTML and back."""
    shape = shape_of(EVERY_KIND)
    form = form_of(EVERY_KIND, "en", filled(shape, VALUE))
    back = read(shape, sent_of(Controls(html_of(form)).sent))
    assert back.faults == {}
    assert back.value == VALUE
    assert [type(back.value[key]) for key in ("level", "count", "ratio")] == [int, int, float]


def test_a_form_that_is_not_filled_in_holds_the_defaults() -> None:
    shape = shape_of(EVERY_KIND)
    form = form_of(EVERY_KIND, "en", filled(shape, {"text": "x", "person": {"name": "Eve"}}))
    back = read(shape, sent_of(Controls(html_of(form)).sent))
    assert back.faults == {}
    action = Action("a", EVERY_KIND, {}, streaming=False, raw={})
    assert check_input(action, back.value) == check_input(action, {"text": "x", "person": {"name": "Eve"}, "tags": []})


@settings(max_examples=25)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=50))
def test_any_text_comes_back(text: str) -> None:
    schema = schema_of(("text",), text={"type": "string", "x-ui": "textarea"}, other={"type": "string", "default": "x"})
    value = {"text": f"a{text}", "other": text}
    shape = shape_of(schema)
    form = form_of(schema, "en", filled(shape, value))
    back = read(shape, {each.name: [each.value.replace("\n", "\r\n")] for each in form.fields})
    assert back.value["text"] == value["text"]
    assert back.value["other"] == value["other"] or not text.strip()


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"type": "integer"}, "1.5"),
        ({"type": "integer"}, "1e3"),
        ({"type": "integer"}, "٣"),
        ({"type": "integer"}, "1_000"),
        ({"type": "integer"}, "0x10"),
        ({"type": "number"}, "nan"),
        ({"type": "number"}, "1e999"),
        ({"type": "number"}, "1,5"),
        ({"type": "number"}, "Infinity"),
        ({"type": "string", "enum": ["a", "b"]}, "c"),
        ({"enum": [1, 2]}, "1.0"),
        ({"type": "string", "format": "date"}, "2026-02-30"),
        ({"type": "string", "format": "date-time"}, "yesterday"),
        ({}, "{"),
        ({}, "NaN"),
        ({"type": "object"}, "{'a': 1}"),
        ({"type": "array", "items": {"type": "array", "items": {}}}, "[1"),
        ({"type": "string"}, ""),
        ({"type": "integer"}, " "),
        ({}, ""),
    ],
)
def test_what_is_not_of_its_type_is_a_fault_at_its_field(field: dict[str, Any], text: str) -> None:
    """12-6: values are parsed strictly on the server."""
    submitted = submit(schema_of(("it",), it=field), ("in/it", text))
    assert list(submitted.faults) == ["in/it"]
    assert "it" not in submitted.value


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ({"type": "integer"}, " 12 ", 12),
        ({"type": "integer"}, "9007199254740993", 9007199254740993),
        ({"type": "number"}, "-.5", -0.5),
        ({"type": "number"}, "1e3", 1000.0),
        ({"type": "boolean"}, "on", True),
        ({"type": "boolean"}, "", False),
        ({"type": ["string", "null"]}, "", None),
        ({"type": ["integer", "null"]}, "4", 4),
        ({"type": "string", "format": "date-time"}, "2026-11-28T09:30", "2026-11-28T09:30:00Z"),
        ({"type": "string", "format": "date-time"}, "2026-11-28T09:30:00+08:00", "2026-11-28T09:30:00+08:00"),
        ({"type": "string"}, " a\r\nb ", " a\nb "),
        ({}, '{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
    ],
)
def test_texts_become_values(field: dict[str, Any], text: str, value: object) -> None:
    submitted = submit(schema_of(("it",), it=field), ("in/it", text))
    assert submitted.faults == {}
    assert submitted.value == {"it": value}


def test_what_is_left_out_stays_out() -> None:
    person = schema_of(("name",), name={"type": "string"})
    schema = schema_of(
        (),
        text={"type": "string"},
        count={"type": "integer", "default": 2},
        person=person,
        tags={"type": "array", "items": {}},
    )
    submitted = submit(schema, ("in/text", ""), ("in/count", ""), ("in/person/name", ""), ("in/tags/0", ""))
    assert (submitted.value, submitted.faults) == ({}, {})
    used = submit(schema, ("in/person/~use", "on"), ("in/person/name", ""))
    assert list(used.faults) == ["in/person/name"]


def test_faults_of_the_schema_stand_at_the_rows_they_are_about() -> None:
    """12-6: an empty row is left out, and those after it keep their faults."""
    item = schema_of(("name",), name={"type": "string", "maxLength": 3})
    schema = schema_of(("people",), people={"type": "array", "items": item, "maxItems": 1})
    submitted = submit(schema, ("in/people/0/name", ""), ("in/people/4/name", "Ann"), ("in/people/7/name", "Stephen"))
    assert submitted.value == {"people": [{"name": "Ann"}, {"name": "Stephen"}]}
    with pytest.raises(InputRejected) as caught:
        check_input(Action("a", schema, {}, streaming=False, raw={}), submitted.value)
    submitted.refuse(caught.value.faults)
    assert set(submitted.faults) == {"in/people", "in/people/7/name"}
    sent = sent_of([("in/people/4/name", "Ann"), ("in/people/7/name", "Stephen")])
    html = html_of(form_of(schema, "en", sent, submitted.faults))
    assert 'aria-describedby="in/people/7/name-fault"' in html
    assert 'aria-describedby="in/people/4/name-fault"' not in html


def test_a_list_has_an_empty_row_and_any_order_of_numbers() -> None:
    schema = schema_of(("tags",), tags={"type": "array", "items": {"type": "string"}})
    sent = sent_of([("in/tags/10", "ten"), ("in/tags/2", "two"), ("in/tags/-1", "no"), ("in/tags/٣", "no")])
    (tags,) = form_of(schema, "en", sent).fields
    assert [(each.name, each.value) for each in tags.fields] == [
        ("in/tags/2", "two"),
        ("in/tags/10", "ten"),
        ("in/tags/11", ""),
    ]
    assert read(shape_of(schema), sent).value == {"tags": ["two", "ten"]}


def test_files_come_as_the_sdk_has_them() -> None:
    """12-7: files in forms; their names hold no folder."""
    file: dict[str, Any] = {"type": "object", "x-ui": "file"}
    text = {"type": "string", "x-ui": "file"}
    schema = schema_of(("document", "picture"), document=file, picture=text, other={"anyOf": [file, {"type": "null"}]})

    def upload(content: bytes, name: str, kind: str = "application/pdf") -> UploadFile:
        return UploadFile(io.BytesIO(content), filename=name, headers=Headers({"content-type": kind}))

    sent = [("in/document", upload(b"\x00\xff", "../../etc/r.pdf")), ("in/picture", upload(b"png", "p.png", "<b>"))]
    submitted = submit(schema, *sent, ("in/other", upload(b"", "")))
    assert submitted.faults == {}
    assert File.from_json(submitted.value["document"], "") == File("r.pdf", b"\x00\xff", "application/pdf")
    assert submitted.value["picture"] == "cG5n"
    assert submitted.value["other"] is None
    large = submit(schema, ("in/document", upload(b"x" * (MAX_FILE_BYTES + 1), "a")), ("in/picture", "text"))
    assert set(large.faults) == {"in/document", "in/picture"}
    assert form_of(schema, "en", {}).has_files


def test_what_authors_and_users_wrote_is_text() -> None:
    """12: XSS in titles, descriptions, choices, defaults, examples, names of fields, and what was sent."""
    evil = "</textarea><script>alert(1)</script>\"'>{{7*7}}"
    schema = schema_of(
        (evil,),
        **{
            evil: {"type": "string", "title": evil, "description": evil, "examples": [evil], "default": evil},
            "choice": {"enum": [evil], "x-title": {"en": evil, "zh": 5}, "default": evil},
            "json": {"default": {evil: evil}},
            "group": schema_of((), **{evil: {"type": "boolean", "title": evil}}),
            "bounds": {"type": "integer", "minimum": evil, "maximum": True, "title": {"en": evil}},
        },
    )
    html = html_of(form_of(schema, "en", filled(shape_of(schema), {})))
    assert "<script" not in html
    assert "49" not in html
    assert html.count("&lt;script&gt;") > 8


def test_texts_are_in_the_readers_language() -> None:
    title = {"x-title": {"en": "Text", "zh": "文本"}, "title": "Text", "x-description": {"en": "What", "zh": "内容"}}
    schema = schema_of((), text={"type": "string", **title}, target_language={"type": "string"})
    assert [each.label for each in form_of(schema, "zh", {}).fields] == ["文本", "target language"]
    assert form_of(schema, "zh", {}).fields[0].help == "内容"
    assert form_of(schema, "en", {}).fields[0].help == "What"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {f"f{number}": {"type": "string"} for number in range(500)}},
    ],
)
def test_what_no_form_can_express_is_written_as_json(schema: dict[str, Any]) -> None:
    (only,) = form_of(schema, "en", filled(shape_of(schema), {"a": 1})).fields
    assert (only.kind, only.name) == ("json", "in")
    assert submit(schema, ("in", '{"f1": "x"}')).value == {"f1": "x"}
    assert submit(schema, ("in", "")).value == {}
    assert list(submit(schema, ("in", "{")).faults) == ["in"]


def test_what_nests_without_end_is_cut_off_by_json() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _level in range(20):
        schema = schema_of(("a",), a=schema)
    back = submit(schema, ("in/a/a/a/a/a", '{"a": 1}'))
    assert back.value == {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}


def test_settings_of_an_app_are_a_form() -> None:
    """12-6: one renderer for actions and config alike."""
    title = LocalisedText(en="Tone", zh="语气")
    config = {
        "tone": ConfigField(type="string", title=title, enum=["dry", "warm"], default="dry"),
        "note": ConfigField(type="string", title=title, ui="textarea"),
        "days": ConfigField(type="array", title=title, enum=["mo", "tu"], default=["mo"]),
        "words": ConfigField(type="array", title=title, default=["a"]),
        "most": ConfigField(type="integer", title=title, default=3),
        "loud": ConfigField(type="boolean", title=title, default=False),
    }
    schema = config_schema(config)
    form = form_of(schema, "zh", filled(shape_of(schema), {}, "config"), prefix="config")
    assert [each.kind for each in form.fields] == ["choice", "area", "choices", "list", "number", "switch"]
    assert {each.label for each in form.fields} == {"语气"}
    assert [each.required for each in form.fields] == [False, True, False, False, False, False]
    items = [*Controls(html_of(form)).sent, ("config/note", "hi")]
    sent = [each for each in items if each != ("config/note", "")]
    values = read(shape_of(schema), sent_of(sent, "config"), "config").value
    assert values == {"tone": "dry", "note": "hi", "days": ["mo"], "words": ["a"], "most": 3, "loud": False}
    assert all(config[name].fault_of(value) is None for name, value in values.items())
