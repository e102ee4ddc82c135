"""What can go wrong. Each fault is done, held, and undone; `hold()` ends early when the schedule does.

A fault gets the lab and a chance of its own, so that the same plan picks the same victims. A server that the fault
itself leaves in doubt (a second master, say) is put right by `World.heal`.
"""

import asyncio
import os
import signal


async def kill_node(lab, chance, hold):
    node = chance.choice(lab.world.nodes)
    await node.kill()
    lab.said(target=node.name)
    await hold()
    await revive(lab, node)


async def restart_node(lab, chance, hold):
    """In order: the node is asked to end, and says goodbye."""
    node = chance.choice(lab.world.nodes)
    lab.said(target=node.name)
    if node.alive() and not node.stopped:
        os.kill(node.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.to_thread(node.child.wait), 10)
        except TimeoutError:
            lab.said(problem="SIGTERM did not end it within 10 s", target=node.name)
            await node.kill()
    await hold()
    await revive(lab, node)


async def revive(lab, node):
    if not node.alive():
        await lab.world.start_node(node)


async def stop_node(lab, chance, hold):
    node = chance.choice(lab.world.nodes)
    node.stop()
    lab.said(target=node.name)
    await hold()
    node.cont()


def links(lab, chance):
    """The links of one node, or of all, to one server, or to all."""
    proxies = chance.choice([lab.world.proxies, [chance.choice(lab.world.proxies)]])
    nodes = chance.choice([[chance.choice(lab.world.nodes)], lab.world.nodes])
    lab.said(nodes=[node.letter for node in nodes], servers=[proxy.server for proxy in proxies])
    return [proxy.link(node.letter) for proxy in proxies for node in nodes]


async def reset_links(lab, chance, hold):
    for link in links(lab, chance):
        link.reset()


async def partition(lab, chance, hold):
    direction = chance.choice(("there", "back", "both", "both"))
    cut = links(lab, chance)
    lab.said(direction=direction)
    for link in cut:
        link.partition(direction)
    await hold()
    ends = chance.random() < 0.3
    for link in cut:
        link.heal()
        if ends:
            link.reset()


async def slow_links(lab, chance, hold):
    slow = links(lab, chance)
    delay_seconds, rate = chance.uniform(0.005, 0.08), chance.choice((0, 0, 20_000))
    lab.said(delay_seconds=round(delay_seconds, 3), rate=rate)
    for link in slow:
        link.slow(delay_seconds, rate)
    await hold()
    for link in slow:
        link.heal()


async def slow_all(lab, chance, hold):
    """Everything is far away: 160 ms there and back."""
    slow = [proxy.link(node.letter) for proxy in lab.world.proxies for node in lab.world.nodes]
    lab.said(nodes=[node.letter for node in lab.world.nodes], delay_seconds=0.08)
    for link in slow:
        link.slow(0.08)
    await hold()
    for link in slow:
        link.heal()


async def cut_clients(lab, chance, hold):
    for client in chance.sample(lab.clients, chance.choice((1, 1, 2, 4))):
        client.cut()


async def kill_store(lab, chance, hold):
    store = chance.choice(lab.world.stores)
    lab.said(target=store.name)
    await store.kill()
    await hold()
    if not store.alive():
        await store.start()


async def stop_store(lab, chance, hold):
    await stopped(lab, chance.choice(lab.world.stores), hold)


async def stopped(lab, store, hold):
    lab.said(target=store.name)
    store.stop()
    await hold()
    store.cont()


async def save(lab, chance, hold):
    """What an `async` server survives a kill with, and the dump that `put_back` puts back."""
    for store in lab.world.stores:
        if store.alive() and not store.stopped and await store.role() == "master":
            await store.save(lab.world.folder / f"{store.name}.older.rdb")


async def put_back(lab, chance, hold):
    """An older dump is put back, as after a mistake with backups."""
    store = chance.choice(lab.world.stores)
    dump = lab.world.folder / f"{store.name}.older.rdb"
    lab.said(target=store.name, dump=dump.exists())
    await store.kill()
    if dump.exists():
        store.put_back(dump)
    await hold()
    await store.start()


async def flush(lab, chance, hold):
    masters = [store for store in lab.world.stores if await store.role() == "master"]
    if masters:
        store = chance.choice(masters)
        lab.said(target=store.name)
        await store.call("FLUSHALL")


async def evict(lab, chance, hold):
    """The record or the log of a room is gone, as an eviction policy would do it."""
    room, kind = chance.choice(lab.rooms), chance.choice("ml")
    for store in lab.world.stores:
        if await store.role() == "master":
            for key in await store.call("KEYS", f"*{kind}:{room}"):
                await lab.tried(store.call("DEL", key))
                lab.said(target=store.name, key=key)


async def kill_master(lab, chance, hold):
    master = await lab.world.master()
    if master:
        lab.said(target=master.name)
        await master.kill()
        await hold()
        await master.start()


async def stop_master(lab, chance, hold):
    """The old master thaws after another was made."""
    master = await lab.world.master()
    if master:
        await stopped(lab, master, hold)


async def split(lab, chance, hold):
    """The master is cut off from its replica and the sentinels, and the nodes still reach it."""
    master = await lab.world.master()
    if master is None:
        return
    lab.said(target=master.name)
    others = [*lab.world.stores, *lab.world.sentinels]
    cut = [master.proxy.link(other.name) for other in others if other is not master]
    for link in cut:
        link.partition()
    await hold()
    for link in cut:
        link.heal()


async def sentinel_failover(lab, chance, hold):
    sentinel = chance.choice(lab.world.sentinels)
    lab.said(target=sentinel.name)
    if sentinel.alive():
        await lab.tried(sentinel.call("SENTINEL", "FAILOVER", lab.world.MASTER))


async def kill_sentinel(lab, chance, hold):
    sentinel = chance.choice(lab.world.sentinels)
    lab.said(target=sentinel.name)
    await sentinel.kill()
    await hold()
    await sentinel.start()


async def move_slot(lab, chance, hold):
    room = chance.choice(lab.rooms)
    lab.said(room=room)
    await lab.tried(lab.world.move_slot(room, chance, hold))


async def cluster_failover(lab, chance, hold):
    """A replica takes over in order."""
    replicas = [store for store in lab.world.stores if await store.role() == "slave"]
    if replicas:
        store = chance.choice(replicas)
        lab.said(target=store.name)
        await lab.tried(store.call("CLUSTER", "FAILOVER"))
