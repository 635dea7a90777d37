"""Lets the RQ dashboard show queues, workers and jobs of other programs in the same Redis.

They may be pickled, which must not be loaded, of another version of RQ, half deleted, or under keys of another type.
What can't be read is shown as such, or left out; it never keeps a page from being shown.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue, Worker
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.registry import BaseRegistry
from rq.serializers import JSONSerializer

UNREADABLE = "(can't be read: it belongs to another program)"


class ReadingSerializer:
    """Loads JSON; anything else becomes a call with the name UNREADABLE."""

    @staticmethod
    def dumps(*args: Any, **kwargs: Any) -> bytes:
        """RQ: jobs that are shown are never stored."""
        raise NotImplementedError

    @staticmethod
    def loads(data: bytes) -> Any:
        try:
            return JSONSerializer.loads(data)
        except Exception:
            return (UNREADABLE, None, (), {})


class ShownJob(Job):
    """A job as far as it can be read."""

    def __init__(self, id: str | None = None, connection: Any = None, serializer: Any = None) -> None:  # noqa: A002
        super().__init__(id, connection=connection, serializer=ReadingSerializer)

    def restore(self, raw_data: Any) -> Any:
        """RQ: reads the job's hash. Raises NoSuchJobError."""
        try:
            return super().restore(raw_data)
        except NoSuchJobError:
            raise
        except Exception:
            self.description = UNREADABLE
            return None

    def _deserialize_data(self) -> None:
        try:
            super()._deserialize_data()  # type: ignore[no-untyped-call]
        except Exception:
            self._func_name, self._instance, self._args, self._kwargs = UNREADABLE, None, (), {}

    def get_status(self, refresh: bool = True) -> Any:
        return read_or(lambda: super(ShownJob, self).get_status(refresh), "?")

    def latest_result(self, timeout: int = 0) -> Any:
        return read_or(lambda: super(ShownJob, self).latest_result(timeout), None)

    def return_value(self, refresh: bool = False) -> Any:
        return read_or(lambda: super(ShownJob, self).return_value(refresh), None)

    @property
    def dependency_ids(self) -> Any:
        """As bytes, which the dashboard expects."""
        return [dependency.encode() for dependency in super().dependency_ids]


class UnreadableJob:
    """Stands for a job that RQ can't even name."""

    created_at = started_at = ended_at = None
    description = UNREADABLE

    def __init__(self, id: str) -> None:  # noqa: A002
        self.id = id

    def latest_result(self) -> None:
        return None


class ShownQueue(Queue):
    """A queue as far as it can be read."""

    job_class = ShownJob

    @classmethod
    def all(cls, connection: Any, **_: Any) -> list[Queue]:  # type: ignore[override]
        """RQ: leaves out what is no queue."""
        queues = []
        for key in connection.smembers(cls.redis_queues_keys):
            queue = read_or(partial(cls.from_queue_key, read_text(key), connection=connection), None)
            if queue is not None and queue.is_list:
                queues.append(queue)
        return queues

    @property
    def is_list(self) -> bool:
        """Whether the queue's key is of the right type, or absent."""
        return read_or(lambda: self.connection.llen(self.key), None) is not None

    @property
    def count(self) -> int:
        return int(read_or(lambda: self.connection.llen(self.key), 0))

    def get_job_ids(self, offset: int = 0, length: int = -1) -> list[str]:
        """RQ: the ids in a part of the queue; a length of -1 means the rest."""
        end = offset + length - 1 if length >= 0 else -1
        entries = read_or(lambda: self.connection.lrange(self.key, offset, end), []) if length else []
        return [read_text(entry) for entry in entries]

    def fetch_job(self, job_id: str) -> Any:
        """RQ: None for a job that is gone; unlike RQ's own, removes nothing."""
        try:
            job = ShownJob.fetch(job_id, connection=self.connection)
        except NoSuchJobError:
            return None
        except Exception:
            return UnreadableJob(job_id)
        return job if job.origin in ("", self.name) else None


class ShownWorker(Worker):
    """A worker as far as it can be read."""

    job_class = ShownJob

    @classmethod
    def find_by_key(cls, worker_key: str, *args: Any, **kwargs: Any) -> Any:
        """RQ: None for a worker that is gone, or can't be read."""
        kwargs["job_class"] = ShownJob
        return read_or(lambda: super(ShownWorker, cls).find_by_key(worker_key, *args, **kwargs), None)

    def get_current_job(self) -> Any:
        """RQ: None when it is idle, or its job is gone."""
        return read_or(super().get_current_job, None)


def read_or(read: Callable[[], Any], default: Any) -> Any:
    """What is read, or the default if it can't be. Raises RedisConnectionError."""
    try:
        return read()
    except RedisConnectionError:
        raise
    except Exception:
        return default


def show_registry(registry: type[BaseRegistry]) -> type[BaseRegistry]:
    """A registry of that class as far as it can be read."""

    class ShownRegistry(registry):  # type: ignore[misc,valid-type]
        def get_job_count(self, cleanup: bool = True) -> int:
            """RQ: 0 if its key is of another type; unlike RQ's own, removes nothing."""
            return int(read_or(lambda: self.connection.zcard(self.key), 0))

        def get_job_ids(self, start: int = 0, end: int = -1, desc: bool = False, cleanup: bool = True) -> list[str]:
            """RQ: the ids, of entries of other versions of RQ too."""
            entries = read_or(lambda: self.connection.zrange(self.key, start, end, desc=desc), [])
            return [read_or(partial(self.parse_job_id, entry), read_text(entry)) for entry in entries]

    return ShownRegistry


def read_text(data: bytes) -> str:
    return data.decode(errors="replace")
