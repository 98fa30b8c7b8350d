"""How invites and the queue of support rooms are built: both stand on rooms and members."""

from collections.abc import Callable

from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.invites.repository import InviteRepository
from chatserver.invites.service import InviteService
from chatserver.rooms.members import MemberService
from chatserver.rooms.service import RoomService
from chatserver.support.repository import SupportRepository
from chatserver.support.service import SupportService
from chatserver.wiring.core import Core


class Helpdesk:
    """`rooms` and `members` build within a transaction."""

    def __init__(
        self,
        core: Core,
        *,
        rooms: Callable[[UnitOfWork], RoomService],
        members: Callable[[UnitOfWork], MemberService],
    ) -> None:
        def invites(work: UnitOfWork) -> InviteService:
            return InviteService(
                invites=InviteRepository(work.session),
                rooms=rooms(work),
                members=members(work),
                recorder=work,
            )

        def support(work: UnitOfWork) -> SupportService:
            return SupportService(
                queue=SupportRepository(work.session),
                rooms=rooms(work),
                members=members(work),
                recorder=work,
                generation=core.generation,
            )

        self.open_invites = core.open(invites)
        self.open_support = core.open(support)
