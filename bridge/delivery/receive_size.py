"""How many messages a receive asks for: in tens, never beyond the window, at once where a process would idle. Pure."""

from __future__ import annotations

#: More finished messages than this (or the window, if larger) awaiting their confirmation stop the receiving.
UNCONFIRMED_LIMIT = 100


def receive_size(
    *, window: int, waiting: int, running: int, processes: int, asked: int, unconfirmed: int, idle: bool, limit: int
) -> int:
    """Return how many messages to ask for now; 0 means: start no receive.

    ``waiting`` and ``running`` are messages held, ``asked`` those that other receives under way may bring,
    ``unconfirmed`` those that finished and await SQS's confirmation. ``idle`` says that the queue's last receive
    brought nothing. ``limit`` is the most that one receive may bring.
    """
    if unconfirmed > max(UNCONFIRMED_LIMIT, window):
        return 0
    batch = min(limit, window)
    ask = min(limit, window - waiting - running - asked)
    if ask <= 0:
        return 0
    if idle or ask == batch:
        return ask
    if window - processes - batch >= processes / 2:
        # There will be free slots for a whole batch while half of the busy processes still have their next message.
        return 0
    return ask if processes - waiting > asked else 0


def is_surely_none(
    *, window: int, waiting: int, running: int, processes: int, asked: int, idle: bool, limit: int
) -> bool:
    """Return True for most moments in which ``receive_size`` is 0, at a part of its cost.

    Asked at every change of a message, while a receive starts at every tenth. ``asked`` may leave out what receives of
    other queues may bring: more of them free no slot.
    """
    too_little_for_a_batch = window - waiting - running - asked < min(limit, window)
    return not idle and too_little_for_a_batch and processes - waiting <= asked
