"""The lanes of notifications: one for each channel, all woken by one bell."""

from collections.abc import Mapping
from typing import Final

from chatserver.notifications.mails.policies import cut_off
from chatserver.notifications.requests.policies import EMAIL, SMS, cut_short, judge
from workers.deliveries import Lane, Rules, again
from workers.delivery_ports import Cut, Notes, Queue, Sender

CUTS: Final[Mapping[str, Cut]] = {EMAIL: cut_off, SMS: cut_short}


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
                rules=Rules(judge, CUTS.get(channel, again)),
                slots=slots,
            )
            for channel, sender in senders.items()
        ]

    def wake(self) -> None:
        """Let every channel look now."""
        for lane in self.lanes:
            lane.wake()
