"""Cursors that callers hold and only we can make or read."""

import base64
import binascii

from chatserver.infra.secrets import SecretBox, UnreadableSecretError


class CursorSeal:
    """Opaque text around bytes, bound to a purpose: another caller's cursor does not open."""

    def __init__(self, box: SecretBox) -> None:
        self._box = box

    def seal(self, content: bytes, purpose: str) -> str:
        sealed = self._box.seal(content, bound_to=purpose)
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def open(self, text: str, purpose: str) -> bytes | None:
        """Give the content back, or None when it isn't ours, or isn't this caller's."""
        try:
            sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            return self._box.open(sealed, bound_to=purpose)
        except (ValueError, binascii.Error, UnreadableSecretError):
            return None
