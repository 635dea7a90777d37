"""Starts the workers of newly claimed credentials, once the jobs of their predecessors are recovered."""

from collections.abc import Callable, Sequence
from functools import partial

from redis.exceptions import RedisError

from workers.credentials.leases import Lease, Leases
from workers.jobs.orphan_recovery import find_workers_with_jobs
from workers.jobs.pool_queues import PoolQueues
from workers.parallel import run_in_parallel
from workers.per_pool import PerPool
from workers.worker.leased_credential import LeasedCredential
from workers.worker.rq_worker import FarmWorker
from workers.worker.services import WorkerServices


class WorkerStarter:
    """Builds and starts the workers of one process.

    Leases are renewed from when their workers run, so it must take few round trips until then, however many leases
    there are: one if no predecessor has left a job.
    """

    def __init__(
        self,
        services: WorkerServices,
        leases: Leases,
        queues: PerPool[PoolQueues],
        find_own_limits: Callable[[str], str],
        run: Callable[[FarmWorker], None],
    ) -> None:
        """`find_own_limits` returns limits of a credential's own, encoded."""
        self._services = services
        self._leases = leases
        self._queues = queues
        self._find_own_limits = find_own_limits
        self._run = run

    def start(self, leases: Sequence[Lease]) -> None:
        """Starts a worker for each slot of the credentials.

        Raises RedisError when jobs of a predecessor can't be recovered; the lease of that credential is then released.
        """
        if not leases:
            return
        starts = {lease.credential_id: self._build_workers(lease) for lease in leases}
        workers = [worker for slots in starts.values() for worker in slots]
        try:
            with_jobs = find_workers_with_jobs(self._services.redis, workers)
        except RedisError:
            run_in_parallel(partial(self._leases.release, lease) for lease in leases)
            raise
        to_recover = {worker.lease.credential_id for worker in with_jobs}
        for worker in workers:
            if worker.lease.credential_id not in to_recover:
                self._run(worker)
        run_in_parallel(partial(self._recover_and_run, starts[credential_id]) for credential_id in to_recover)

    def _build_workers(self, lease: Lease) -> list[FarmWorker]:
        pool, own_limits = self._services.settings.pool(lease.pool), self._find_own_limits(lease.credential_id)
        credential = LeasedCredential(lease, pool, self._services, own_limits)
        bookkeeping = self._queues[lease.pool].bookkeeping
        return [FarmWorker(credential, bookkeeping, slot + 1) for slot in range(credential.pool.slots)]

    def _recover_and_run(self, workers: Sequence[FarmWorker]) -> None:
        """Recovers and starts the workers of one credential."""
        lease = workers[0].lease
        try:
            for worker in workers:
                self._queues[lease.pool].recover_from_predecessor(worker)
        except RedisError:
            self._leases.release(lease)
            raise
        for worker in workers:
            self._run(worker)
