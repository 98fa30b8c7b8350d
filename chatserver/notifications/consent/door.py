"""`GET` and `POST /u/{token}`: one click out of a category (RFC 8058), without logging in.

Mail filters follow every link: `GET` changes nothing and shows a page with a button. The button,
and the mail program itself, send `List-Unsubscribe=One-Click`.
"""

import html
from typing import Final

from aiohttp import web

from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.opening import Open
from chatserver.notifications.consent.service import ConsentService
from chatserver.transport.bodies import read_bytes

PATH: Final = "/u/{token}"
ONE_CLICK: Final = b"List-Unsubscribe=One-Click"
MOST_BODY: Final = 4096
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"
_PAGE: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">'
    "<title>{title}</title>"
    "<style>body{{font:1.1rem/1.5 system-ui;max-width:32rem;margin:4rem auto;padding:0 1rem}}"
    "button{{font:inherit;padding:.6rem 1.2rem}}</style>"
    "<h1>{title}</h1><p>{text}</p>{more}</html>"
)
_BUTTON: Final = (
    '<form method="post"><input type="hidden" name="List-Unsubscribe" value="One-Click">'
    "<button>Unsubscribe</button></form>"
)


class UnsubscribeDoor:
    def __init__(self, consent: Open[ConsentService]) -> None:
        self._consent = consent

    def attach(self, app: web.Application) -> None:
        app.router.add_get(PATH, self.ask)
        app.router.add_post(PATH, self.end)

    async def ask(self, request: web.Request) -> web.Response:
        """Show whom the link is about, and the button. Changes nothing."""
        async with self._consent() as consent:
            _, address, category = consent.read_token(request.match_info["token"])
        text = f"No more e-mails of the kind “{html.escape(category)}” to {html.escape(address)}?"
        return _page("Unsubscribe", text, _BUTTON)

    async def end(self, request: web.Request) -> web.Response:
        """Unsubscribe. Sending it again changes nothing.

        Raises:
            PayloadInvalidError: the body is not `List-Unsubscribe=One-Click`.
            UnsubscribeTokenError: the token is not from here.
        """
        # Some mail programs send it as multipart/form-data, which RFC 8058 allows.
        body = await read_bytes(request, most=MOST_BODY)
        is_form = body.strip() == ONE_CLICK
        is_multipart = b'name="List-Unsubscribe"' in body and b"One-Click" in body
        if not is_form and not is_multipart:
            raise PayloadInvalidError.of("$", "must be List-Unsubscribe=One-Click")
        async with self._consent() as consent:
            category = await consent.unsubscribe(request.match_info["token"])
        text = f"You will get no more e-mails of the kind “{html.escape(category)}”."
        return _page("You are unsubscribed", text, "")


def _page(title: str, text: str, more: str) -> web.Response:
    return web.Response(
        text=_PAGE.format(title=title, text=text, more=more),
        content_type="text/html",
        headers={"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"},
    )
