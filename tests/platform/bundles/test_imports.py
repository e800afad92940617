"""A component's imports, checked against its manifest."""

import pytest

from llmasos.bundles.imports import check_imports, undeclared
from llmasos.errors import ComponentRejected

IMPORTS = (
    "llmasos:app/model@0.1.0",
    "llmasos:app/log@0.1.3",
    "llmasos:app/types@0.1.0",
    "wasi:clocks/wall-clock@0.2.0",
)


def test_what_is_declared_and_the_baseline_pass() -> None:
    check_imports(IMPORTS, frozenset({"model"}))
    assert undeclared(IMPORTS, frozenset({"model", "storage"})) == []


def test_every_undeclared_capability_is_named_with_the_lines_that_declare_it() -> None:
    wanted = (*IMPORTS, "llmasos:app/http@0.1.0", "llmasos:app/storage@0.1.0")
    assert undeclared(wanted, frozenset({"model"})) == ["http", "storage"]
    lines = r'imports http, storage, .*capability = "http"; .*capability = "storage"'
    with pytest.raises(ComponentRejected, match=lines):
        check_imports(wanted, frozenset({"model"}))


@pytest.mark.parametrize(
    "name",
    ["evil:sys/call@1.0.0", "llmasos:app/model@0.2.0", "wasi:http/outgoing-handler@0.3.0", "llmasos:app/model", "x"],
)
def test_what_is_outside_the_contract_is_refused_though_a_capability_be_declared(name: str) -> None:
    with pytest.raises(ComponentRejected, match="which no host offers"):
        check_imports((*IMPORTS, name), frozenset({"model", "http"}))
