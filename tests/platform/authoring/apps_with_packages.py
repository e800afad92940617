"""An app that needs a package, written by tests."""

from pathlib import Path

from llmasos.bundles.testing import manifest_text

APP = '''
from llmasos_sdk import App, Context

app = App()


@app.action
def go(ctx: Context, text: str) -> str:
    """Go."""
    import wordy

    return wordy.shout(text)
'''


def write_app(folder: Path, source: str = "app.py", kind: str = "wasm", **files: str) -> Path:
    folder.mkdir()
    manifest = manifest_text().replace(
        'kind = "wasm"\nsource = "app.py"', f'kind = "{kind}" # mine\nsource = "{source}"'
    )
    for name, text in {"llmapp.toml": manifest, "README.md": "# It\n", "app.py": APP, **files}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder
