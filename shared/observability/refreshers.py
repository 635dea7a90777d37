"""Which hosts have a token refresher that reports: one per worker host refreshes its access tokens."""

from dataclasses import dataclass

from redis import Redis

from shared import clock, keys

#: Seconds without a report after which a token refresher is missed; one that was killed is back in about one.
REPORT_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Refreshers:
    """The token refreshers that report."""

    count: int
    #: Hosts with worker processes, and without a token refresher.
    missing_hosts: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """What an operator should know, as sentences without a full stop."""
        return [f"host {host} has no token refresher: access tokens expire there" for host in self.missing_hosts]


def read_refreshers(redis: Redis) -> Refreshers:
    with redis.pipeline(transaction=False) as pipe:
        pipe.zrangebyscore(keys.REFRESHERS, clock.now() - REPORT_TIMEOUT_SECONDS, "+inf")
        pipe.zrange(keys.PROCESSES, 0, -1)
        refreshers, processes = pipe.execute()
    with redis.pipeline(transaction=False) as pipe:
        for process in processes:
            pipe.hget(keys.process(process.decode()), "needs_refresher")
        needs = pipe.execute() if processes else []
    # Worker processes of older versions refresh their tokens themselves.
    needing = {find_host(process) for process, need in zip(processes, needs, strict=True) if need}
    return Refreshers(len(refreshers), tuple(sorted(needing - set(map(find_host, refreshers)))))


def find_host(process_id: bytes) -> str:
    """The host in the id of a process: <host>-<pid>-<nonce>."""
    return process_id.decode().rsplit("-", 2)[0]
