"""Reader, without a host. The documents are made here, by the libraries that read them."""

import io

import docx
import openpyxl
import pypdf
import pytest
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from llmasos_sdk import File, Invalid
from llmasos_sdk.testing import FakeContext, ScriptedModel, call

TEXT = ["The bridge of Brava was opened in 1931.", "It cost four million crowns.", "Cheese is sold on the square."]


def encoded(content):
    return File("document", content)


def pdf(pages=TEXT, password=None):
    writer = pypdf.PdfWriter()
    font = DictionaryObject(
        {
            NameObject(f"/{key}"): NameObject(f"/{value}")
            for key, value in (("Type", "Font"), ("Subtype", "Type1"), ("BaseFont", "Helvetica"))
        }
    )
    for text in pages:
        page = writer.add_blank_page(400, 400)
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 350 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
        fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return encoded(out.getvalue())


def word():
    document = docx.Document()
    for text in TEXT:
        document.add_paragraph(text)
    document.add_table(1, 2).rows[0].cells[0].text = "Length 210 m"
    out = io.BytesIO()
    document.save(out)
    return encoded(out.getvalue())


def excel():
    book = openpyxl.Workbook()
    book.active.title = "Sales"
    book.active.append(["city", "units"])
    book.active.append(["Brava", 42])
    out = io.BytesIO()
    book.save(out)
    return encoded(out.getvalue())


def test_an_answer_rests_on_the_pages_that_fit(llmasos_app, fake_context):
    fake_context.scripted.answers("It cost four million crowns.")
    answer = call(llmasos_app, "ask", fake_context, document=pdf(), question="How much did it cost?")
    assert answer["answer"] == "It cost four million crowns."
    assert answer["passages"][0]["where"] == "page 2"
    assert "four million" in fake_context.scripted.requests[0]["messages"][-1]["content"]
    assert "Cheese" not in fake_context.scripted.requests[0]["messages"][-1]["content"]


def test_without_a_fit_model_the_passages_are_the_answer_and_it_says_what_to_connect(llmasos_app):
    """11-37: the embedded model made up a date."""
    ctx = FakeContext(model=ScriptedModel(is_fit=False))
    answer = call(llmasos_app, "ask", ctx, document=pdf(), question="When was the bridge opened?")
    assert "1931" in answer["passages"][0]["text"]
    assert "models add" in answer["answer"]
    assert "1931" not in answer["answer"]


def test_where_nothing_fits_no_model_is_asked(llmasos_app, fake_context):
    answer = call(llmasos_app, "ask", fake_context, document=pdf(), question="zebra?")
    assert answer["passages"] == []
    assert fake_context.scripted.requests == []


@pytest.mark.parametrize(
    ("make", "kind", "words"), [(pdf, "pdf", "bridge"), (word, "word", "length"), (excel, "excel", "brava")]
)
def test_each_kind_is_read(llmasos_app, fake_context, make, kind, words):
    assert call(llmasos_app, "overview", fake_context, document=make())["kind"] == kind
    assert call(llmasos_app, "find", fake_context, document=make(), words=words)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("???", "a file is an object"),
        (encoded(b"hello"), "neither"),
        (encoded(b"%PDF-1.7 broken"), "cannot be read|no text"),
        (encoded(b"PK\x03\x04broken"), "cannot be read"),
        (pdf([""]), "no text"),
        (pdf(password="x"), "encrypted"),
        (encoded(b"%PDF-" + b"x" * 750_000), "750,005 bytes; 750,000 are the most"),
    ],
)
def test_what_cannot_be_read_says_why(llmasos_app, fake_context, document, message):
    with pytest.raises(Invalid, match=message):
        call(llmasos_app, "overview", fake_context, document=document)
