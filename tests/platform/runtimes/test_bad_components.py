import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest
from tests.platform.runtimes import wat
from tests.platform.runtimes.conftest import invocation, no_host, program_of

from llmasos.errors import ComponentRejected, ResourceLimit, TimedOut, Unavailable
from llmasos.runtimes import compiled
from llmasos.runtimes.compiled import CompiledStore
from llmasos.runtimes.component import ComponentRuntime, NotPrepared
from llmasos.settings import Settings


@pytest.fixture
async def runtime(tmp_path):
    runtime = ComponentRuntime(Settings(home=tmp_path / "home", runners=1), no_host)
    yield runtime
    await runtime.close()


async def rejected(runtime, path: Path) -> str:
    with pytest.raises(ComponentRejected) as caught:
        await runtime.inspect(path)
    assert "\n" not in caught.value.message
    return caught.value.message


async def test_a_small_component_of_any_language_runs(runtime, tmp_path):
    path = wat.component(tmp_path / "echo.wasm", wat.core_module())
    program = program_of(path, ())
    await runtime.prepare(program, path)
    assert await runtime.describe(program) == "[]"
    assert (await runtime.call(program, invocation(), "any", '{"a": 1}')).output == '{"a": 1}'


async def test_what_is_no_component_is_refused_with_its_reason(runtime, tmp_path):
    path = tmp_path / "bad.wasm"
    path.write_bytes(random.Random(1).randbytes(10_000))
    assert "does not begin as one" in await rejected(runtime, path)
    path.write_bytes(b"")
    assert "does not begin as one" in await rejected(runtime, path)
    wat.module(path, "(module)")
    assert "core module" in await rejected(runtime, path)
    whole = wat.component(path, wat.core_module()).read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert "not valid" in await rejected(runtime, path)
    middle = bytearray(whole)
    middle[len(whole) // 3 : len(whole) // 2] = random.Random(2).randbytes(len(whole) // 2 - len(whole) // 3)
    path.write_bytes(middle)
    assert "not valid" in await rejected(runtime, path)


async def test_a_component_of_another_world_is_refused(runtime, tmp_path):
    other = "package acme:other@1.0.0; world tested { export run: func(); }"
    path = wat.component(tmp_path / "other.wasm", '(module (func (export "run")))', wit=other, world="")
    assert "does not export llmasos:app/handler@0.1.0" in await rejected(runtime, path)


async def test_a_handler_with_another_type_is_refused(runtime, tmp_path):
    text = wat.WIT.read_text().replace("describe: func() -> string;", "describe: func() -> u32;")
    path = wat.component(tmp_path / "typed.wasm", wat.core_module(), wit=text)
    assert "func() -> u32, where the contract has func() -> string" in await rejected(runtime, path)


async def test_an_import_that_the_contract_does_not_have_is_refused(runtime, tmp_path):
    text = wat.WIT.read_text() + "interface shell { run: func(); }"
    core = wat.core_module(imports='(import "llmasos:app/shell@0.1.0" "run" (func))')
    path = wat.component(
        tmp_path / "shell.wasm", core, wit=text, world="world tested { import shell; export handler; }"
    )
    assert "imports llmasos:app/shell@0.1.0" in await rejected(runtime, path)


async def test_an_import_that_the_manifest_does_not_declare_is_refused(runtime, tmp_path):
    """SECURITY C2."""
    core = wat.core_module(imports='(import "llmasos:app/secrets@0.1.0" "names" (func (param i32)))')
    world = "world tested { import secrets; export handler; }"
    path = wat.component(tmp_path / "undeclared.wasm", core, world=world)
    with pytest.raises(ComponentRejected, match=r'does not declare.*capability = "secrets"'):
        await runtime.prepare(program_of(path, ()), path)
    assert "llmasos:app/secrets@0.1.0" in (await runtime.inspect(path)).imports
    # And even without that check, only granted interfaces are linked.
    outcome = await runtime.call(program_of(path, ()), invocation(), "any", "1")
    assert isinstance(outcome.error, ComponentRejected)
    assert "not granted" in outcome.error.message


async def test_a_memory_of_four_gigabytes_is_refused_when_it_runs(runtime, tmp_path):
    path = wat.component(tmp_path / "wide.wasm", wat.core_module(pages="65536"))
    await runtime.prepare(program_of(path, ()), path)
    outcome = await runtime.call(program_of(path, ()), invocation(), "any", "1")
    assert isinstance(outcome.error, ResourceLimit)
    assert "64 MiB" in outcome.error.message


async def test_an_endless_start_function_ends_at_the_deadline(runtime, tmp_path):
    core = wat.core_module(rest="(func $spin (loop (br 0))) (start $spin)")
    path = wat.component(tmp_path / "start.wasm", core)
    await runtime.prepare(program_of(path, ()), path)
    outcome = await runtime.call(program_of(path, ()), invocation(wall_seconds=0.4), "any", "1")
    assert isinstance(outcome.error, TimedOut)


async def test_deep_recursion_in_a_component_ends_as_an_error(runtime, tmp_path):
    core = wat.core_module(body="(call $deep)", rest="(func $deep (call $deep))")
    path = wat.component(tmp_path / "deep.wasm", core)
    await runtime.prepare(program_of(path, ()), path)
    outcome = await runtime.call(program_of(path, ()), invocation(), "any", "1")
    assert isinstance(outcome.error, ResourceLimit)
    assert "nest deeper" in outcome.error.message


async def test_fifty_thousand_functions_compile_within_bounds_or_are_refused(runtime, tmp_path, monkeypatch):
    functions = "".join(f"(func (result i32) (i32.const {number}))" for number in range(50_000))
    path = wat.component(tmp_path / "many.wasm", wat.core_module(rest=functions))
    monkeypatch.setattr(compiled, "CPU_SECONDS", 1)
    assert "more than 1 seconds of compute" in await rejected(runtime, path)
    assert not list((tmp_path / "home" / "compiled").glob("*.cwasm*"))


async def test_a_program_that_was_not_prepared_says_so(runtime, tmp_path):
    path = wat.component(tmp_path / "echo.wasm", wat.core_module())
    with pytest.raises(NotPrepared):
        await runtime.call(program_of(path, ()), invocation(), "any", "1")


async def test_bytes_that_are_not_the_installed_ones_are_refused(runtime, tmp_path):
    path = wat.component(tmp_path / "echo.wasm", wat.core_module())
    program = program_of(path, ())
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ComponentRejected, match="digest differs"):
        await runtime.prepare(program, path)


async def test_a_compiled_file_that_was_changed_is_compiled_again(tmp_path):
    path = wat.component(tmp_path / "echo.wasm", wat.core_module())
    digest = program_of(path).digest
    store = CompiledStore(tmp_path / "compiled")
    await store.ensure(digest, path)
    good = store.path(digest).read_bytes()
    store.path(digest).write_bytes(good[:-1] + b"x")
    assert await CompiledStore(tmp_path / "compiled").find(digest) is None
    await CompiledStore(tmp_path / "compiled").ensure(digest, path)
    assert store.path(digest).read_bytes() == good


async def test_four_stores_of_one_folder_compile_once(tmp_path, monkeypatch):
    path = wat.component(tmp_path / "echo.wasm", wat.core_module())
    digest = program_of(path).digest
    count = 0
    real = compiled.compile_between

    async def counted(*descriptors, bubblewrap):
        nonlocal count
        count += 1
        return await real(*descriptors, bubblewrap=bubblewrap)

    monkeypatch.setattr(compiled, "compile_between", counted)
    await asyncio.gather(*(CompiledStore(tmp_path / "compiled").ensure(digest, path) for _ in range(4)))
    assert count == 1


async def test_a_host_that_is_killed_while_it_compiles_leaves_nothing_half(tmp_path):
    path = wat.component(tmp_path / "echo.wasm", wat.core_module())
    folder = tmp_path / "compiled"
    digest = program_of(path).digest
    script = (
        "import asyncio, os, sys; from pathlib import Path; from llmasos.runtimes import compiled\n"
        "async def stop(*_, **__): print('here', flush=True); await asyncio.sleep(60)\n"
        "compiled.compile_between = stop\n"
        f"asyncio.run(compiled.CompiledStore(Path({str(folder)!r})).ensure({digest!r}, Path({str(path)!r})))\n"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert await child.stdout.readline() == b"here\n"
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    assert len(list(folder.glob(".*cwasm.*"))) == 1
    store = CompiledStore(folder)
    assert await store.find(digest) is None
    await store.ensure(digest, path)
    assert not list(folder.glob(".*cwasm.*"))


async def test_a_store_that_cannot_be_written_says_so(tmp_path):
    path = wat.component(tmp_path / "echo.wasm", wat.core_module())
    (tmp_path / "compiled").write_text("a file where the folder should be")
    with pytest.raises(Unavailable, match="cannot be stored"):
        await CompiledStore(tmp_path / "compiled").ensure(program_of(path).digest, path)
