"""Store of the sign-ins. It seals what a browser brings back, and cannot read it again."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from redis import Redis

from shared import clock, keys
from shared.credentials.sealing import Sealer
from shared.errors import Conflict, NotFound
from shared.redis_connection.client import decode_hash, register_script
from shared.sign_in.sign_in import SignIn, hash_state

#: Seconds that an owner has to sign in, unless the authorization server says how long a device code is valid.
PENDING_SECONDS = 600.0
#: Seconds for which a sign-in is remembered after that.
KEPT_SECONDS = 3600
#: Sign-ins that may be pending at the same time; each of a device is polled for.
MAX_PENDING = 200
FIELDS = tuple(field.name for field in fields(SignIn) if field.name != "id")


class SignIns:
    """The sign-ins of all pools."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._submit_script = register_script(redis, Path(__file__).with_name("submit_answer.lua"))
        self._change_script = register_script(redis, Path(__file__).with_name("change_pending.lua"))

    def create(self, pool: str, flow: str, redirect_uri: str = "", label: str = "") -> SignIn:
        """Stores a new sign-in, which a worker process then begins. Raises Conflict while too many are pending."""
        now = clock.now()
        if self._redis.zcount(keys.SIGN_INS, now, "+inf") >= MAX_PENDING:
            raise Conflict(f"{MAX_PENDING} sign-ins are pending: cancel some, or wait")
        sign_in = SignIn(secrets.token_hex(8), pool, flow, "pending", now, now + PENDING_SECONDS, label=label)
        values = {**sign_in.to_dict(), "redirect_uri": redirect_uri}
        del values["id"]
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(keys.sign_in(sign_in.id), mapping=values)
            pipe.expire(keys.sign_in(sign_in.id), int(PENDING_SECONDS) + KEPT_SECONDS)
            pipe.zadd(keys.SIGN_INS, {sign_in.id: sign_in.expires_at})
            pipe.zremrangebyscore(keys.SIGN_INS, "-inf", now - KEPT_SECONDS)
            pipe.execute()
        return sign_in

    def get(self, sign_in_id: str) -> SignIn:
        """Raises NotFound."""
        values = self._redis.hmget(keys.sign_in(sign_in_id), FIELDS)
        if not values[0]:
            raise NotFound(f"no sign-in {sign_in_id!r}")
        return build_sign_in(
            sign_in_id, {name: value.decode() for name, value in zip(FIELDS, values, strict=True) if value}
        )

    def list_recent(self) -> list[SignIn]:
        """Those of the last hour and a bit, newest first."""
        ids = [member.decode() for member in self._redis.zrange(keys.SIGN_INS, 0, -1)]
        with self._redis.pipeline(transaction=False) as pipe:
            for sign_in_id in ids:
                pipe.hgetall(keys.sign_in(sign_in_id))
            found = zip(ids, map(decode_hash, pipe.execute()), strict=True)
        sign_ins = [build_sign_in(sign_in_id, values) for sign_in_id, values in found if "pool" in values]
        return sorted(sign_ins, key=lambda sign_in: sign_in.created_at, reverse=True)

    def list_unfinished(self) -> list[str]:
        """The ids of those that are pending, and whose time is not over."""
        return [member.decode() for member in self._redis.zrangebyscore(keys.SIGN_INS, clock.now(), "+inf")]

    def find_by_state(self, state: str) -> SignIn:
        """The sign-in whose authorization request had this `state`. Raises NotFound."""
        found = self._redis.get(keys.sign_in_state(hash_state(state)))
        if not found:
            raise NotFound("no sign-in waits for this answer: it is unknown, or was answered long ago")
        return self.get(found.decode())

    def submit(self, sign_in_id: str, answer: Mapping[str, str]) -> bool:
        """Stores what a browser came back with; False if there is an answer already, or it is too late."""
        sealed = Sealer.load(self._redis).seal(json.dumps(dict(answer)), seal_context(sign_in_id))
        return bool(self._submit_script(keys=[keys.sign_in(sign_in_id)], args=[sealed, clock.now()]))

    def change(self, sign_in_id: str, **values: Any) -> bool:
        """Changes fields of a pending sign-in; False if it is over. An end of it is final."""
        pairs = [part for pair in values.items() for part in pair]
        script_keys = [keys.sign_in(sign_in_id), keys.SIGN_INS]
        return bool(self._change_script(keys=script_keys, args=[sign_in_id, clock.now(), *pairs]))

    def fail(self, sign_in_id: str, error: str, message: str, state: str = "failed") -> bool:
        """Ends a pending sign-in. `state` may be `expired`."""
        return self.change(sign_in_id, state=state, error=error, message=message)


def seal_context(sign_in_id: str) -> str:
    """What its sealed values are sealed for."""
    return f"sign-in:{sign_in_id}"


def build_sign_in(sign_in_id: str, values: Mapping[str, str]) -> SignIn:
    """A sign-in from the fields of its hash. One whose time is over without an end has expired."""
    texts: dict[str, Any] = {name: values.get(name, "") for name in FIELDS}
    times = {name: float(values.get(name) or 0) for name in ("created_at", "expires_at")}
    if texts["state"] == "pending" and times["expires_at"] < clock.now():
        texts |= {"state": "expired", "error": "expired", "message": "nobody has signed in in time"}
    return SignIn(sign_in_id, **{**texts, **times})
