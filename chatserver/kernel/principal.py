"""Who is calling."""

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from chatserver.kernel.errors import ScopeMissingError


class Caller(StrEnum):
    """The three kinds of credential."""

    OPERATOR = "operator"
    MASTER = "master"
    USER = "user"


class Scope(StrEnum):
    """What a scoped key may do. Administration has no scope: it takes a master key."""

    ROOMS_READ = "rooms:read"
    ROOMS_WRITE = "rooms:write"
    CHAT_READ = "chat:read"
    CHAT_WRITE = "chat:write"
    NOTIFICATIONS_READ = "notifications:read"
    PROFILE_READ = "profile:read"
    PROFILE_WRITE = "profile:write"
    ASSISTANT_USE = "assistant:use"


ALL_SCOPES = frozenset(Scope)
NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller.

    `client_id` is `NOBODY` for the operator, `user_id` for everyone but a user. `user_id` is the
    server's own id and never goes on the wire; `external_id` is how callers name the person.
    """

    caller: Caller
    client_id: UUID = NOBODY
    client_slug: str = ""
    user_id: UUID = NOBODY
    external_id: str = ""
    display_name: str | None = None
    key_id: UUID | None = None
    kid: str = ""
    device_id: str = ""
    # Names the one JWT that was presented, if it has a `jti`; empty for keys.
    token: str = ""
    scopes: frozenset[Scope] = field(default_factory=frozenset)
    # Unix seconds: when the credential was issued, and when it ends for good.
    issued_at: float | None = None
    expires_at: float | None = None
    origins: tuple[str, ...] = ()

    @property
    def is_master(self) -> bool:
        return self.caller is Caller.MASTER

    @property
    def is_user(self) -> bool:
        return self.caller is Caller.USER

    @property
    def name(self) -> str:
        """Who acts, for logs and the event log: never a server id of a person."""
        return self.external_id or self.caller.value

    def require(self, scope: Scope) -> None:
        """Refuse a scoped key that lacks the scope; a master key has them all.

        Raises:
            ScopeMissingError: the key lacks `scope`.
        """
        if self.caller is Caller.MASTER or scope in self.scopes:
            return
        raise ScopeMissingError(f"This needs the scope {scope.value}.", scope=scope.value)
