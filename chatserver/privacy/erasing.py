"""The erasure of one person, in short transactions: whoever takes over goes on where it stands.

In every room first the seat goes, under the room's lock, so that nothing of the person can come in
any more; then the messages are overwritten; only then does `messages.erased` say so. When the fact
is there, it is true. What the person gave others' messages goes after that, and each of these
messages says by a fact of its own what it has left: from one name no device could tell.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

from chatserver.infra.signing import ReportSigner
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.clock import rfc3339
from chatserver.kernel.events import SYSTEM
from chatserver.kernel.opening import Open
from chatserver.privacy import policies, told
from chatserver.privacy.events import erased, taken_back
from chatserver.privacy.holds import HoldRepository
from chatserver.privacy.inbound import FIRST, scrub_page
from chatserver.privacy.models import Erasure
from chatserver.privacy.outbound import scrub_told
from chatserver.privacy.repository import PrivacyRepository
from chatserver.rooms.models import Member, Room

ROOMS: Final = 500
ROWS: Final = 5000
MESSAGES: Final = 1000
# So many facts of a room at a time: while they are written nobody can send to it.
REACTED: Final = 100
ROUNDS: Final = 3


class Answers(Protocol):
    """Kept answers of writes."""

    async def forget(
        self, client_id: UUID, caller: str, quotes: Callable[[bytes], bool], instead: bytes
    ) -> int:
        """Drop a caller's answers, and replace those of others that quote; how many it were."""
        ...


class Files(Protocol):
    """What people have uploaded."""

    async def forget(self, client_id: UUID, user_id: UUID) -> int:
        """Remove a person's files, in the store as well; how many it were.

        Raises:
            UnavailableError: the store is away; the job tries again.
        """
        ...


class Rooms(Protocol):
    """Rooms and seats of one transaction."""

    async def lock(self, client_id: UUID, room_id: UUID) -> Room | None: ...

    async def find_member(self, room_id: UUID, user_id: UUID) -> Member | None: ...

    async def remove_member(self, member: Member, reason: str) -> None: ...


class Eraser:
    def __init__(
        self,
        *,
        open_work: Open[UnitOfWork],
        rooms: Callable[[UnitOfWork], Rooms],
        answers: Answers,
        files: Files,
        signer: ReportSigner,
        count_changed: Callable[[UUID, UUID], None],
    ) -> None:
        self._open_work = open_work
        self._rooms = rooms
        self._answers = answers
        self._files = files
        self._signer = signer
        self._count_changed = count_changed

    async def erase(self, erasure_id: UUID) -> None:
        """Do what is left of an erasure; nothing when it is done.

        Raises:
            RuntimeError: somebody keeps adding the person to rooms; the job tries again later.
        """
        async with self._open_work() as work:
            erasure = await PrivacyRepository(work.session).begin(erasure_id)
        if erasure is None:
            return
        after = erasure.after_room
        # Before the log forgets whom a fact was about; what comes meanwhile is looked for after it.
        await self._scrub_told(erasure)
        for _ in range(ROUNDS):
            if not await self._walk(erasure, after):
                return
            await self._take_back(erasure)
            await self._forget_answers(erasure)
            await self._scrub_inbound(erasure)
            await self._forget_files(erasure)
            await self._scrub_told(erasure)
            if await self._finish(erasure):
                return
            # Somebody was adding the person to a room just when the erasure began.
            after = None
        raise RuntimeError("the person is still a member of a room")

    async def _walk(self, erasure: Erasure, after: UUID | None) -> bool:
        """Go through the rooms. False: a legal hold is in the way; its release plans this anew."""
        while True:
            async with self._open_work() as work:
                holds = HoldRepository(work.session)
                if await holds.touching(erasure.client_id, erasure.user_id):
                    await holds.stop(erasure.id)
                    return False
                privacy = PrivacyRepository(work.session)
                page = await privacy.rooms(erasure.client_id, after, ROOMS)
                ids = [room_id for room_id, _ in page]
                await privacy.mark(erasure, ids)
                untold = await privacy.untold(erasure, ids)
            if not page:
                return True
            for room_id in untold:
                await self._leave(erasure, room_id)
            await self._scrub(erasure, page)
            async with self._open_work() as work:
                untold = await PrivacyRepository(work.session).untold(erasure, ids)
            for room_id in untold:
                await self._tell(erasure, room_id)
            after = ids[-1]
            async with self._open_work() as work:
                await PrivacyRepository(work.session).pass_room(erasure.id, after)

    async def _leave(self, erasure: Erasure, room_id: UUID) -> None:
        async with self._open_work() as work:
            rooms = self._rooms(work)
            room = await rooms.lock(erasure.client_id, room_id)
            member = await rooms.find_member(room_id, erasure.user_id)
            if room is None or member is None:
                return
            await rooms.remove_member(member, "erased")
            room.members_count -= 1
            await PrivacyRepository(work.session).count(erasure.id, "memberships", 1)
            work.after_commit(lambda: self._count_changed(erasure.client_id, room_id))

    async def _scrub(self, erasure: Erasure, page: Sequence[tuple[UUID, int]]) -> None:
        ids = [room_id for room_id, _ in page]
        done = MESSAGES
        while done == MESSAGES:
            async with self._open_work() as work:
                done = await PrivacyRepository(work.session).scrub_messages(erasure, ids, MESSAGES)
        done = MESSAGES
        while done == MESSAGES:
            async with self._open_work() as work:
                done = await PrivacyRepository(work.session).scrub_answers(erasure, ids, MESSAGES)
        for rooms, low, high in policies.in_slices(page, ROWS):
            async with self._open_work() as work:
                await PrivacyRepository(work.session).scrub_slice(erasure, rooms, low, high)
        async with self._open_work() as work:
            await PrivacyRepository(work.session).scrub_rooms(erasure, ids)

    async def _tell(self, erasure: Erasure, room_id: UUID) -> None:
        async with self._open_work() as work:
            privacy = PrivacyRepository(work.session)
            room = await self._rooms(work).lock(erasure.client_id, room_id)
            if not await privacy.tell(erasure.id, room_id) or room is None:
                return
            await privacy.count(erasure.id, "rooms", 1)
            work.record(
                erased(
                    erasure.client_id,
                    room_id,
                    user_id=erasure.user_id,
                    external_id=erasure.external_id,
                    up_to_seq=room.last_seq,
                    members_count=room.members_count,
                )
            )

    async def _forget_answers(self, erasure: Erasure) -> None:
        name = erasure.external_id
        forgotten = await self._answers.forget(
            erasure.client_id,
            f"user:{name}",
            lambda body: policies.answer_quotes(body, name),
            policies.ERASED_ANSWER,
        )
        if forgotten:
            async with self._open_work() as work:
                await PrivacyRepository(work.session).count(erasure.id, "answers", forgotten)

    async def _take_back(self, erasure: Erasure) -> None:
        while True:
            async with self._open_work() as work:
                found = await PrivacyRepository(work.session).reacted(erasure, REACTED)
            if not found:
                return
            for room_id, messages in found:
                async with self._open_work() as work:
                    room = await self._rooms(work).lock(erasure.client_id, room_id)
                    left = await PrivacyRepository(work.session).scrub_reactions(erasure, messages)
                    if room is None:
                        continue  # deleted: nobody is told of anything there
                    for message_id in messages:
                        if message_id in left:
                            work.record(
                                taken_back(
                                    erasure.client_id,
                                    room_id,
                                    message_id=message_id,
                                    left=left[message_id],
                                )
                            )

    async def _scrub_told(self, erasure: Erasure) -> None:
        after: int | None = 0
        while after is not None:
            async with self._open_work() as work:
                after, cleared = await scrub_told(
                    work.session, erasure.client_id, erasure.external_id, after
                )
                if cleared:
                    await PrivacyRepository(work.session).count(
                        erasure.id, "webhook_events", cleared
                    )

    async def _scrub_inbound(self, erasure: Erasure) -> None:
        async with self._open_work() as work:
            done = await told.forget_deliveries(
                work.session, erasure.client_id, erasure.external_id
            )
            if done:
                await PrivacyRepository(work.session).count(
                    erasure.id, "notification_deliveries", done
                )
        after: UUID | None = FIRST
        while after is not None:
            async with self._open_work() as work:
                after, cleared = await scrub_page(
                    work.session, erasure.client_id, erasure.external_id, after
                )
                if cleared:
                    await PrivacyRepository(work.session).count(
                        erasure.id, "inbound_events", cleared
                    )

    async def _forget_files(self, erasure: Erasure) -> None:
        forgotten = await self._files.forget(erasure.client_id, erasure.user_id)
        if forgotten:
            async with self._open_work() as work:
                await PrivacyRepository(work.session).count(erasure.id, "files", forgotten)

    async def _finish(self, erasure: Erasure) -> bool:
        """Delete the person and sign the report. False: there are new seats, walk again."""
        async with self._open_work() as work:
            privacy = PrivacyRepository(work.session)
            await privacy.lock_user(erasure.user_id)
            if await privacy.is_member(erasure.user_id):
                await privacy.begin_again(erasure.id)
                return False
            await privacy.scrub_records(erasure)
            await privacy.remove_user(erasure)
            at = await privacy.now()
            report: dict[str, Any] = {
                "id": str(erasure.id),
                "client_id": str(erasure.client_id),
                "user_id": erasure.external_id,
                "requested_by": erasure.requested_by,
                "requested_at": rfc3339(erasure.requested_at),
                "completed_at": rfc3339(at),
                "erased": await privacy.counts(erasure.id),
                "kept": list(policies.KEPT),
            }
            content = policies.canonical(report)
            signed = self._signer.sign(content)
            await privacy.close(erasure.id, at, content, signed.value, signed.public_key)
            work.audit(erasure.client_id, SYSTEM, "user.erased", f"erasure:{erasure.id}")
        return True
