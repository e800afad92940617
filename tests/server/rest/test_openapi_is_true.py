"""The OpenAPI document is complete, and routes return what it says."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

# Every test reads the same document; finding its schemas takes most of a check's time.
VALIDATORS: dict[str, Draft202012Validator] = {}


def resolved(document: dict[str, Any], pointer: str) -> Draft202012Validator:
    if pointer not in VALIDATORS:
        registry = Registry().with_resource("urn:api", Resource(contents=document, specification=DRAFT202012)).crawl()
        VALIDATORS[pointer] = Draft202012Validator({"$ref": f"urn:api#{pointer}"}, registry=registry)
    return VALIDATORS[pointer]


def escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def check(document: dict[str, Any], path: str, method: str, answer: Any) -> None:
    declared = document["paths"][path][method.lower()]["responses"]
    status = str(answer.status_code)
    assert status in declared, f"{method} {path} answers {status}, which it does not declare"
    media = answer.headers["content-type"].partition(";")[0]
    assert media in declared[status]["content"], f"{method} {path} {status} answers {media}"
    if media.endswith("json"):
        at = f"/paths/{escaped(path)}/{method.lower()}/responses/{status}/content/{escaped(media)}/schema"
        errors = [error.message for error in resolved(document, at).iter_errors(json.loads(answer.content))]
        assert errors == [], f"{method} {path} {status}"


async def test_every_route_answers_what_it_declares(served: Any) -> None:
    document = (await served.client.get("/openapi.json")).json()
    made = (await served.client.post("/api/v1/apps/acme/tool/actions/echo", json={"text": "a"})).json()["id"]
    known = {
        "publisher": "acme", "name": "tool", "action": "echo", "invocation": made, "installation": "none",
        "capability": "http", "model": "none", "token": "none", "user": "none", "invitation": "none",
        "install_request": "none",
    }  # fmt: skip
    walked = 0
    for path, methods in document["paths"].items():
        for method in methods:
            url = path.format(**known)
            bodies = [{"text": "a"}, {}] if method in {"post", "put", "patch"} else [None]
            for token in ("all", "nobody", "run", "read", "bounded", "installer", "admin"):
                for body in bodies if token in {"all", "admin"} else bodies[:1]:
                    headers = {"authorization": f"Bearer {token}"}
                    answer = await served.client.request(method.upper(), url, json=body, headers=headers)
                    check(document, path, method, answer)
                    walked += 1
            malformed = (b"{", b"[]", b'"\xff"', b'{"a": "\\u0000"}', b"[" * 100_000)
            for body in malformed if "requestBody" in methods[method] else ():
                sent = {"authorization": "Bearer admin", "content-type": "application/json"}
                check(
                    document, path, method, await served.client.request(method.upper(), url, content=body, headers=sent)
                )
            missing = path.format(**dict.fromkeys(known, "f" * 32))
            check(document, path, method, await served.client.request(method.upper(), missing))
            if method == "get":
                for query in ("cursor=!", "limit=0", "days=0"):
                    answer = await served.client.get(f"{url}?{query}")
                    if answer.status_code != 200:
                        check(document, path, method, answer)
    assert walked > 50


async def test_every_operation_is_named_and_described(served: Any) -> None:
    document = (await served.client.get("/openapi.json")).json()
    operations = [each for methods in document["paths"].values() for each in methods.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)
    for each in operations:
        assert each["summary"]
        assert each["description"]
    protected = [each for path, methods in document["paths"].items() for each in methods.values() if "/api/" in path]
    assert all(each.get("security") for each in protected)


@pytest.mark.parametrize("path", ["installations", "usage", "quotas", "models"])
async def test_what_there_is_needs_the_scope_read(served: Any, path: str) -> None:
    assert (await served.client.get(f"/api/v1/{path}")).status_code == 200
    refused = await served.client.get(f"/api/v1/{path}", headers={"authorization": "Bearer run"})
    assert refused.json()["code"] == "scope-missing"


async def test_models_are_listed_without_addresses_and_keys(served: Any) -> None:
    for model in (await served.client.get("/api/v1/models")).json()["items"]:
        assert not {"key", "api_base", "litellm", "gguf"} & set(model)


async def test_everything_is_described_and_has_an_example(served: Any) -> None:
    """11-42."""
    document = (await served.client.get("/openapi.json")).json()
    used = {tag for methods in document["paths"].values() for each in methods.values() for tag in each["tags"]}
    assert used == {tag["name"] for tag in document["tags"] if tag["description"]} - {"catalog"}
    for name, schema in document["components"]["schemas"].items():
        assert schema["description"], name
        assert schema["examples"], name
        for field, described in schema["properties"].items():
            assert described.get("description"), f"{name}.{field}"
    for path, methods in document["paths"].items():
        for each in methods.values():
            for parameter in each.get("parameters", ()):
                assert parameter.get("description"), f"{path} {parameter['name']}"
            for status, answer in each["responses"].items():
                schemas = [content.get("schema", {}) for content in answer.get("content", {}).values()]
                assert all("HTTPValidationError" not in str(schema) for schema in schemas), f"{path} {status}"


@pytest.mark.parametrize("name", ["GrantView", "InvocationView", "ModelView", "Problem", "QuotaView", "UsageView"])
async def test_an_example_fits_its_schema_but_for_what_is_nested(served: Any, name: str) -> None:
    document = (await served.client.get("/openapi.json")).json()
    [example] = document["components"]["schemas"][name]["examples"]
    errors = resolved(document, f"/components/schemas/{name}").iter_errors(example)
    assert [error.message for error in errors if error.instance is not None] == []


async def test_nul_in_a_path_or_a_parameter_is_refused_on_every_route(served: Any) -> None:
    """11-S17: on PostgreSQL, which cannot compare NUL with any text, it was a 500."""
    document = (await served.client.get("/openapi.json")).json()
    walked = 0
    for path, methods in document["paths"].items():
        for method in methods:
            names = [part.strip("{}") for part in path.split("/") if part.startswith("{")]
            for name in names:
                url = path.format(**dict.fromkeys(names, "a") | {name: "a%00b"})
                answer = await served.client.request(method.upper(), url, json={} if method == "post" else None)
                assert (answer.status_code, answer.json()["code"]) == (404, "not-found"), url
                walked += 1
            answer = await served.client.request(method.upper(), f"{path}?app=%00")
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), path
    assert walked > 5
