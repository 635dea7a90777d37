"""A front writes each log entry once, also when a reply of Redis is lost."""

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.errors import ApiError
from shared.observability.request_log import LogFilter, RequestLog
from tests.builders import build_request
from web.request.log_buffer import RequestLogBuffer


class LossyRequestLog(RequestLog):
    """Writes, and then loses the reply of Redis."""

    loses_replies = True

    def write(self, entries, batch=""):
        super().write(entries, batch)
        if self.loses_replies:
            raise RedisConnectionError("lost")


def test_batch_is_written_once_when_its_reply_is_lost(redis: Redis):
    log = LossyRequestLog(redis)
    buffer = RequestLogBuffer(log)
    buffer.record_ended(build_request(), ApiError(429, "queue_timeout", "x"))
    for _ in range(2):
        with pytest.raises(RedisConnectionError):
            buffer.flush()
    log.loses_replies = False
    buffer.record_ended(build_request("req_2"), ApiError(429, "queue_full", "x"))
    buffer.flush()
    buffer.flush()
    codes = [item.entry.code for item in log.read_newest_first(LogFilter())][::-1]
    assert codes == ["queue_timeout", "queue_full"]
