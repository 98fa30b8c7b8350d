"""The lanes of notifications: one for each channel, all woken by one bell."""

from collections.abc import Mapping

from chatserver.notifications.requests.policies import judge
from workers.deliveries import Lane
from workers.delivery_ports import Notes, Queue, Sender


class NotificationLanes:
    """A lane for each channel that has a sender."""

    def __init__(
        self,
        *,
        queue: Queue,
        senders: Mapping[str, Sender],
        notes: Mapping[str, Notes],
        slots: int,
    ) -> None:
        self.lanes = [
            Lane(
                channel=channel,
                queue=queue,
                sender=sender,
                notes=notes[channel],
                judge=judge,
                slots=slots,
            )
            for channel, sender in senders.items()
        ]

    def wake(self) -> None:
        """Let every channel look now."""
        for lane in self.lanes:
            lane.wake()
