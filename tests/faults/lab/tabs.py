"""People of the presence schedules: tabs that come and go in every way, and observers that stay."""

import asyncio
import time

from .clients import Client, Publisher

FOREVER_SECONDS = 3_600


class Observer(Client):
    """Stays in all rooms; its own view is what the lab waits for at the end."""


class Tab(Client):
    """One of several connections of a user, in one room."""

    def __init__(self, lab, name, user, room, chance):
        # Whether it is there when the schedule is over.
        self.stays = chance.random() < 0.5
        self._leave_at = 0.0
        super().__init__(lab, name, [room], chance, user)

    def begin(self):
        super().begin()
        self._leave_at = time.monotonic() + self.chance.uniform(0.2, 3)

    async def away(self):
        if self.lab.ending.is_set() and not self.stays:
            await asyncio.sleep(FOREVER_SECONDS)
        await self.lab.pause(self.chance.choice((0, 0, 0.2, 1, 4)))

    async def more(self, wire, now):
        over = self.lab.ending.is_set()
        if now < self._leave_at and not (over and not self.stays):
            return
        if over and self.stays:
            return
        self._leave_at = now + self.chance.uniform(0.2, 3)
        how = self.chance.choice(("leave", "close", "cut", "cut"))
        (room, place), = self.places.items()
        if how == "leave" and place.joined and not over:
            # It is joined again by the next turn, as after a reload of the page.
            place.joined = False
            await wire.send("leave", room=room)
        elif how == "close":
            await wire.close()
        else:
            wire.cut()


def people(lab, own):
    rooms = lab.rooms
    publisher = Publisher(lab, "p1", rooms[0], own())
    observers = [Observer(lab, f"o{n + 1}", rooms, own()) for n in range(3)]
    tabs = [
        Tab(lab, f"u{user}-{tab}", f"u{user}", rooms[user % len(rooms)], own())
        for user, count in ((1, 3), (2, 3), (3, 1), (4, 2), (5, 1))
        for tab in range(count)
    ]
    return [publisher], [publisher, *observers], tabs


def there(clients, room):
    return {client.user for client in clients if room in client.places and client.stands(room)}
