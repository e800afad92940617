"""What every page stands on: who looks, in which language and theme, and how errors and redirects are shown."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Coroutine
from functools import cache, cached_property
from http import HTTPStatus
from typing import Annotated, Any, Final, cast
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response
from typing_extensions import override

from llmasos.errors import Denied, Invalid, LlmasosError, NotFound
from llmasos.i18n import Message, _, languages, negotiate, render
from llmasos.kernel.invocation import Principal
from llmasos_server.accounts.sessions import Sessions, SignedIn
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web import assets
from llmasos_server.web.formats import Formats

logger = logging.getLogger(__name__)

SESSION_COOKIE: Final = "llmasos_session"
LOCALE_COOKIE: Final = "llmasos_locale"
THEME_COOKIE: Final = "llmasos_theme"
THEMES: Final = ("auto", "light", "dark")

# Nothing from elsewhere, nothing inline. Images may be data: URLs, since answers of apps hold them.
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "worker-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


class SignInNeeded(Exception):
    """Nobody is signed in; the browser is sent to sign in, and comes back."""


class Forbidden(Denied):
    """Your role in this workspace does not allow this: ask an administrator."""

    code = "role-forbids"


class FormRefused(Denied):
    """This form is too old, or came from another page: open the page again, and send it from there."""

    code = "form-refused"


class View:
    """One request for a page, as its templates see it."""

    def __init__(self, request: Request) -> None:
        self.request = request

    @cached_property
    def signed_in(self) -> SignedIn | None:
        """Whoever is signed in, now."""
        cookie = self.request.cookies.get(SESSION_COOKIE)
        return None if cookie is None else cast("Sessions", self.request.app.state.sessions).recognise(cookie)

    @cached_property
    def locale(self) -> str:
        """The language: as chosen by the switch, or as the browser asks."""
        chosen = self.request.cookies.get(LOCALE_COOKIE)
        if chosen not in languages() and self.signed_in is not None:
            chosen = self.signed_in.user.locale
        if chosen is not None and chosen in languages():
            return chosen
        return negotiate(self.request.headers.get("accept-language", ""))

    @cached_property
    def format(self) -> Formats:
        """How dates and numbers are written in that language."""
        return Formats(self.locale)

    @cached_property
    def theme(self) -> str:
        """`auto`, `light` or `dark`."""
        chosen = self.request.cookies.get(THEME_COOKIE)
        if chosen not in THEMES and self.signed_in is not None:
            chosen = self.signed_in.user.theme
        return chosen if chosen in THEMES else "auto"

    @property
    def path(self) -> str:
        """The path of the page, for marking where one is."""
        return self.request.url.path

    @property
    def here(self) -> str:
        """Path and query, to come back to."""
        query = self.request.url.query
        return self.path + (f"?{query}" if query else "")

    @property
    def principal(self) -> Principal:
        """The caller.

        Raises:
            SignInNeeded: Nobody is signed in.
        """
        known = self._somebody().principal
        return Principal(known.workspace, known.user, self.locale)

    def require(self, scope: TokenScope) -> SignedIn:
        """Whoever is signed in, if the role allows `scope`.

        Raises:
            SignInNeeded: Nobody is signed in.
            Forbidden: The role does not allow it.
        """
        known = self._somebody()
        if scope not in known.role.scopes:
            raise Forbidden
        return known

    def may(self, scope: str) -> bool:
        """Whether whoever is signed in may do something: for leaving out what would be refused."""
        return self.signed_in is not None and TokenScope(scope) in self.signed_in.role.scopes

    async def form(self, max_files: int = 0) -> FormData:
        """The form that was sent, if it came from a page of this session.

        Args:
            max_files: How many files it may have.

        Raises:
            FormRefused: It did not.
        """
        form = await self.request.form(max_files=max_files, max_fields=1000)
        if self.signed_in is not None:
            sent, known = str(form.get("form_token")), self.signed_in.form_token
            if not hmac.compare_digest(sent.encode("utf-8", "surrogatepass"), known.encode()):
                raise FormRefused
        return form

    def text(self, id_: str, **parameters: Any) -> str:
        """A message in the reader's language."""
        return render(Message(id_, parameters), self.locale)

    def texts(self, singular: str, plural: str, count: int, **parameters: Any) -> str:
        """A message about a number of things, in the reader's language."""
        return render(Message(singular, {"count": count, **parameters}, plural), self.locale)

    def show(self, message: str) -> str:
        """A message that was made elsewhere, in the reader's language."""
        return render(message, self.locale)

    def render(self, template: str, status: int = 200, **context: Any) -> Response:
        """A page, from a template."""
        html = (
            _environment()
            .get_template(template)
            .render(view=self, _=self.text, ngettext=self.texts, show=self.show, asset=assets.url, icon=icon, **context)
        )
        # What others wrote may hold half of a pair of surrogates, which UTF-8 has not.
        return HTMLResponse(html.encode(errors="replace"), status)

    def _somebody(self) -> SignedIn:
        if self.signed_in is None:
            raise SignInNeeded
        return self.signed_in


def icon(name: str) -> Markup:
    """A symbol of `icons.svg`, which is said by the text beside it."""
    address = Markup.escape(f"{assets.url('icons.svg')}#{name}")
    return Markup('<svg class="icon" aria-hidden="true"><use href="{}"/></svg>').format(address)


def field(form: FormData, name: str) -> str:
    """A field of a form; empty if it was not sent."""
    value = form.get(name)
    return value if isinstance(value, str) else ""


def redirect(path: str) -> Response:
    """Go on to a page of ours, by GET."""
    return RedirectResponse(local(path), HTTPStatus.SEE_OTHER)


def local(path: str | None) -> str:
    """A path of this server; `/` in place of what would lead elsewhere."""
    if not path or not path.startswith("/") or path.startswith(("//", "/\\")) or not path.isprintable():
        return "/"
    parts = urlsplit(path)
    return "/" if parts.scheme or parts.netloc or "\\" in path else path


class PageRoute(APIRoute):
    """A route whose errors are pages, and whose responses carry the headers that protect pages."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        original = super().get_route_handler()

        async def handle(request: Request) -> Response:
            view = View(request)
            request.state.view = view
            try:
                response = await original(request)
            except SignInNeeded:
                response = redirect("/sign-in?" + urlencode({"next": view.here if request.method == "GET" else "/"}))
            except LlmasosError as error:
                response = failed(view, error)
            except RequestValidationError:
                response = failed(view, Invalid(_("This address or form is not complete: go back, and try again.")))
            except HTTPException as error:
                response = failed(view, NotFound() if error.status_code == HTTPStatus.NOT_FOUND else Invalid())
            except Exception:
                logger.exception("a page failed with an error nobody foresaw", extra={"path": request.url.path})
                response = failed(view, LlmasosError())
            finally:
                await request.close()  # the files of a form
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return handle


def failed(view: View, error: LlmasosError) -> Response:
    """The page of an error: what was not done, why, and the way back."""
    return view.render("error.html.jinja", error.status, error=error)


def pages() -> APIRouter:
    """A router for pages."""
    return APIRouter(route_class=PageRoute, include_in_schema=False)


def _view(request: Request) -> View:
    return cast("View", request.state.view)


Shown = Annotated[View, Depends(_view)]
"""The view of a page's request."""


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("llmasos_server.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
