"""Each native app has packages of its own."""

from __future__ import annotations

import asyncio

import pytest
from tests.platform.native.native_apps import HEAD

from llmasos.runtimes.confinement import confinement

pytestmark = pytest.mark.skipif(not confinement().is_available, reason=str(confinement().missing))


async def test_two_apps_run_side_by_side_with_two_versions_of_one_package(host):
    source = HEAD + "import importlib.metadata\n@app.action\ndef version(ctx: Context) -> str:\n    import iniconfig\n"
    source += "    return importlib.metadata.version('iniconfig') + iniconfig.__file__\n"
    old = await host.install(source, "iniconfig==2.0.0", installation="old")
    new = await host.install(source, "iniconfig==2.1.0", installation="new")
    answers = await asyncio.gather(host.run(old, "version"), host.run(new, "version"))
    assert answers[0].startswith("2.0.0/")
    assert answers[1].startswith("2.1.0/")


async def test_two_apps_run_side_by_side_on_pydantic_1_and_2(host):
    old = """
@app.action
def parse(ctx: Context, count: str) -> list[str]:
    import pydantic
    class Order(pydantic.BaseModel):
        count: int
        class Config:
            extra = "forbid"
    return [pydantic.VERSION, Order.parse_obj({"count": count}).json()]
"""
    new = """
@app.action
def parse(ctx: Context, count: str) -> list[str]:
    import pydantic
    class Order(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        count: int
    return [pydantic.VERSION, Order.model_validate({"count": count}).model_dump_json()]
"""
    first = await host.install(HEAD + old, "pydantic<2", installation="old")
    second = await host.install(HEAD + new, "pydantic>=2", installation="new")
    answers = await asyncio.gather(*(host.run(each, "parse", count="3") for each in (first, second) * 3))
    assert answers[0][0].startswith("1.10.")
    assert answers[1][0].startswith("2.")
    assert [answer[1] for answer in answers] == ['{"count": 3}', '{"count":3}'] * 3
    assert answers[0] == answers[2]


async def test_scientific_wheels_work_inside(host):
    source = (
        HEAD
        + """
@app.action
def compute(ctx: Context) -> list[str]:
    import jinja2, numpy, pydantic
    class Point(pydantic.BaseModel):
        x: int
    matrix = numpy.arange(250_000, dtype=float).reshape(500, 500)
    return [str((matrix @ matrix).shape), jinja2.Template("hi {{ n }}").render(n="you"), Point(x="3").model_dump_json()]
"""
    )
    program = await host.install(source, "numpy", "pydantic", "jinja2")
    answer = await host.run(program, "compute", host.invocation(wall_seconds=60))
    assert answer == ["(500, 500)", "hi you", '{"x":3}']
