"""Ending background tasks."""

import asyncio
from typing import Any, Final

AGAIN_S: Final = 1.0


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks until each has ended, however it ends.

    Once is not always enough: a library that takes a cancellation for the end of a timeout of its
    own goes on, and whoever waited for the task would wait for ever.
    """
    begun = [task for task in tasks if task is not None]
    while left := [task for task in begun if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=AGAIN_S)
    for task in begun:
        if not task.cancelled():
            task.exception()  # it was ended, not asked for; asyncio need not tell
