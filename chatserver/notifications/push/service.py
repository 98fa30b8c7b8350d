"""The key by which push services know this server: made when it is first needed, then kept."""

from chatserver.infra.secrets import SecretBox
from chatserver.infra.web_push import Vapid, VapidKey
from chatserver.kernel.clock import Clock
from chatserver.notifications.push.models import WEB_PUSH, place_of_key
from chatserver.notifications.push.repository import PushStore


class PushKeys:
    """`contact` is told to push services: where to find who runs this server."""

    def __init__(self, store: PushStore, box: SecretBox, *, contact: str, clock: Clock) -> None:
        self._store = store
        self._box = box
        self._contact = contact
        self._clock = clock
        self._key: VapidKey | None = None
        self._vapid: Vapid | None = None

    async def public_key(self) -> str:
        """Give what browsers subscribe with (`applicationServerKey`), as base64url.

        Raises:
            UnavailableError: PostgreSQL is away.
            UnreadableSecretError: it was sealed with a key that is gone.
        """
        return (await self._loaded()).public

    async def vapid(self) -> Vapid:
        """Give what signs requests."""
        if self._vapid is None:
            self._vapid = Vapid(await self._loaded(), self._contact, clock=self._clock)
        return self._vapid

    async def _loaded(self) -> VapidKey:
        if self._key is None:
            sealed = await self._store.key(WEB_PUSH)
            if sealed is None:
                # Whoever is first has made it: all read what is there then.
                fresh = VapidKey.new().to_bytes()
                place = place_of_key(WEB_PUSH)
                await self._store.make_key(WEB_PUSH, self._box.seal(fresh, bound_to=place))
                sealed = await self._store.key(WEB_PUSH)
            assert sealed is not None  # noqa: S101 - nobody deletes it
            self._key = VapidKey.from_bytes(self._box.open(sealed, bound_to=place_of_key(WEB_PUSH)))
        return self._key
