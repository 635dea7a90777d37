"""Reply streams of a worker process, kept until the fronts have acknowledged them."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable

from shared import keys
from shared.observability.counters import Counters
from shared.protocol.reply_acks import AckBatch
from workers.reply.outbox import Outbox
from workers.reply.reply_stream import ReplyStream, ignore

log = logging.getLogger("farm.publisher")
#: Seconds and bytes that ended streams are retained at most for a front that does not acknowledge them.
RETAIN_SECONDS = 30.0
MAX_RETAINED_BYTES = 64 * 1024 * 1024


class StreamRegistry:
    """Opens streams, hands them the fronts' acknowledgements, and forgets them."""

    def __init__(self, outbox: Outbox, counters: Counters) -> None:
        self._outbox = outbox
        self._counters = counters
        #: Channel -> a stream that its front may ask to be retransmitted.
        self._streams: dict[str, ReplyStream] = {}
        #: Channel of an ended stream -> when it ended, by the monotonic clock, and its size in bytes.
        self._ended: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._ended_bytes = 0

    def open_stream(
        self, channel: str, job_key: str = "", on_caller_gone: Callable[[], object] = ignore
    ) -> ReplyStream:
        """Opens a stream for a reply. `on_caller_gone` is called when the front no longer waits for it."""
        return ReplyStream(self._outbox, self, channel, job_key, on_caller_gone)

    def stream_begins(self, stream: ReplyStream) -> None:
        """The stream has its first frame: from now on the front may ask for retransmission."""
        self._streams[stream.channel] = stream

    def stream_ends(self, stream: ReplyStream) -> None:
        """The stream has its last frame; it is retained until the front has acknowledged it, within bounds."""
        size = stream.retained_bytes()
        self._ended[stream.channel] = (time.monotonic(), size)
        self._ended_bytes += size
        while self._ended_bytes > MAX_RETAINED_BYTES:
            self._forget(next(iter(self._ended)))

    def handle_acks(self, message: bytes) -> None:
        """Handles one message of a front. Raises ValueError, KeyError or TypeError when it can't be decoded."""
        acks = AckBatch.decode(message)
        for request_id in acks.finished:
            self._forget(keys.reply_channel(acks.front, request_id))
        for request_id, ack in acks.acks.items():
            stream = self._streams.get(keys.reply_channel(acks.front, request_id))
            if stream is not None and (retransmitted := stream.acknowledge(ack)):
                self._counters.increment("frames_replayed", amount=retransmitted)
                fields = {"action": "frames_replayed", "request_id": request_id}
                log.info("%d frames are retransmitted", retransmitted, extra=fields)

    def forget_front(self, front: str) -> None:
        """Drops every stream of a front that has died."""
        prefix = keys.reply_channel(front, "")
        for channel in [channel for channel in self._streams if channel.startswith(prefix)]:
            self._forget(channel)

    def forget_expired(self) -> None:
        """Drops streams that ended more than RETAIN_SECONDS ago."""
        ended_before = time.monotonic() - RETAIN_SECONDS
        while self._ended and next(iter(self._ended.values()))[0] < ended_before:
            self._forget(next(iter(self._ended)))

    def _forget(self, channel: str) -> None:
        self._ended_bytes -= self._ended.pop(channel, (0.0, 0))[1]
        if stream := self._streams.pop(channel, None):
            stream.drop()
