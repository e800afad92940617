"""The layout itself."""

import platform
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_folder_platform_does_not_shadow_the_standard_library() -> None:
    assert platform.python_implementation()
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_no_test_folder_is_a_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
