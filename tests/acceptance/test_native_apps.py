"""Native apps, created, tested, built, published, installed and run by a user's commands."""

import csv
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pypdf
import pytest
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from llmasos.runtimes.confinement import confinement

# The first test includes the quickstart, which may take ten minutes on a busy machine.
pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not confinement().is_available, reason=str(confinement().missing)),
]

# Added to the output of `new`: an action that needs no model, and one that does what no app may.
MORE = '''

@app.action
def count(ctx: Context, text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


@app.action
def start(ctx: Context) -> int:
    """Start another program, which an app may not."""
    import subprocess

    return subprocess.run(["/bin/true"]).returncode
'''


def pdf(path: Path, *pages: str) -> Path:
    """Write a PDF with one text on each page."""
    writer = pypdf.PdfWriter()
    font = {"Type": "/Font", "Subtype": "/Type1", "BaseFont": "/Helvetica"}
    fonts = DictionaryObject({NameObject(f"/{key}"): NameObject(value) for key, value in font.items()})
    for text in pages:
        page = writer.add_blank_page(300, 300)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): writer._add_object(fonts)})}
        )
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
    writer.write(path)
    return path


@pytest.fixture(scope="module")
def reader(user) -> str:
    user.does("install", "llmasos/reader", "--yes")
    return "llmasos/reader"


@pytest.fixture(scope="module")
def analyst(user) -> str:
    user.does("install", "llmasos/analyst", "--yes")
    return "llmasos/analyst"


def output(user, *words: str) -> Any:
    return user.reads("run", *words)["output"]


def test_a_native_app_is_made_tested_built_published_installed_and_run(user, tmp_path: Path) -> None:
    user.does("new", "nat", "--runtime", "python", cwd=tmp_path)
    nat = tmp_path / "nat"
    user.does("test", cwd=nat)
    with (nat / "app.py").open("a") as source:
        source.write(MORE)
    user.does("build", cwd=nat)
    [bundle] = (nat / "dist").glob("*.llmapp")
    inspected = user.reads("inspect", str(bundle))
    assert (inspected["runtime"], inspected["imports"]) == ("python", [])
    published = user.reads("publish", ".", cwd=nat)
    assert published["state"] == "available"
    app = published["app"]
    user.does("install", app, "--yes")
    assert output(user, app, "count", "-p", "text=one two three") == 3
    assert len(output(user, app, "greet", "-p", "name=Ann").split()) > 3
    refused = user.does("run", app, "start", code=1)
    assert "An app cannot start processes: use threads" in refused.stderr
    user.does("uninstall", app, "--delete-data")
    user.does("run", app, "count", "-p", "text=a", code=5)


def test_the_reader_answers_questions_about_a_pdf(user, reader: str, tmp_path: Path) -> None:
    file = pdf(tmp_path / "lease.pdf", "The rent is 900 euros a month.", "Notice is three months.")
    document = ("-p", f"document=@{file}")
    found = output(user, reader, "find", *document, "-p", "words=rent")
    assert found == [{"where": "page 1", "text": "The rent is 900 euros a month."}]
    assert output(user, reader, "overview", *document)["parts"] == 2
    asked = user.reads("run", reader, "ask", *document, "-p", "question=How much is the rent?")
    assert found[0] in asked["output"]["passages"]
    # The embedded model is not fit for questions: the passages are the answer, and no model was called.
    assert "llmasos models add" in asked["output"]["answer"]
    assert asked["usage"]["prompt_tokens"] == 0
    file.write_bytes(file.read_bytes()[:200])
    torn = user.does("run", reader, "overview", *document, code=1)
    assert "cannot be read" in torn.stderr
    assert torn.stderr.count("\n") == 1
    (tmp_path / "note.txt").write_text("no document")
    other = user.does("run", reader, "overview", "-p", f"document=@{tmp_path / 'note.txt'}", code=1)
    assert "neither PDF nor Word" in other.stderr


def test_the_analyst_describes_and_draws_a_table(user, analyst: str, tmp_path: Path) -> None:
    with (tmp_path / "sales.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["city", "price", "rooms"], ["a", 10, 1], ["b", 20, 2], ["c", 30, 3]])
    table = ("-p", f"table=@{tmp_path / 'sales.csv'}")
    told = output(user, analyst, "describe", *table)
    assert told["rows"] == 3
    assert {column["name"]: column["mean"] for column in told["columns"]} == {"price": 20.0, "rooms": 2.0}
    drawn = output(user, analyst, "plot", *table, "-p", 'columns=["price"]')["svg"]
    names = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(drawn).iter()}
    assert {"svg", "path"} <= names
    assert "script" not in names
    assert "price" in drawn
    refused = user.does("run", analyst, "plot", *table, "-p", 'columns=["cost"]', code=1)
    assert "there are price, rooms" in refused.stderr


def test_a_native_app_answers_a_program_that_imports_llmasos(user, analyst: str) -> None:
    program = 'import llmasos; print(llmasos.run("llmasos/analyst", "describe", table="n\\n1\\n3\\n"))'
    ran = subprocess.run(
        [sys.executable, "-c", program], env=user.environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "2.0" in ran.stdout
