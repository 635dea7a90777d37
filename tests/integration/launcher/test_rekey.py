"""`./farm rekey` seals everything with another key, wherever it is interrupted."""

import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from redis import Redis

from launcher.commands import rekey as rekey_command
from launcher.commands.rekey import NEW_KEY_FILE, OLD_KEY_FILE, rekey
from shared import keys
from shared.credentials import rekeying
from shared.credentials.private import PrivateCredentials
from shared.credentials.rekeying import SEALED_FIELDS, reseal_all
from shared.credentials.sealing import HPKE_SUITE
from shared.credentials.store import Credentials
from shared.credentials.unsealing import KEY_FILE, Unsealer, derive, encode_public_key, read_or_create_key
from shared.errors import FarmError, WrongSecretKey

OLD, NEW = "a short old key", "a new key that is long enough to be a key"


class Farm:
    """A stopped farm with three credentials, sealed with its old key in every format."""

    def __init__(self, redis: Redis, secret_key: str) -> None:
        self.redis, old = redis, Unsealer(secret_key)
        old.ensure_sealing_key(redis)
        credentials = Credentials(redis)
        self.ids = [credentials.add("default", "token-0")[0], credentials.add("gone", "token-1")[0]]
        self.ids.append(PrivateCredentials(redis).add("default", "token-2", 5).partition("~")[2])
        for number, credential_id in enumerate(self.ids):
            legacy = HPKE_SUITE.encrypt(b"previous", derive(secret_key).public_key(), credential_id.encode())
            fields = {"previous": legacy, "access": old.sealer.seal(f"access-{number}", credential_id)}
            redis.hset(keys.credential(credential_id), mapping=fields)

    def secrets(self, secret_key: str) -> list[list[str]]:
        """Everything sealed, unsealed by a farm that starts with that key. Raises WrongSecretKey."""
        unsealer = Unsealer(secret_key)
        unsealer.ensure_sealing_key(self.redis)
        stored = [self.redis.hmget(keys.credential(credential_id), SEALED_FIELDS) for credential_id in self.ids]
        return [
            [unsealer.unseal(value, credential_id) for value in values]
            for credential_id, values in zip(self.ids, stored, strict=True)
        ]


EXPECTED = [[f"token-{number}", "previous", f"access-{number}"] for number in range(3)]


@pytest.fixture
def farm(redis: Redis) -> Farm:
    return Farm(redis, OLD)


class InterruptingRedis:
    """A Redis whose client is killed before a certain write."""

    def __init__(self, redis: Redis, writes: int) -> None:
        self._redis = redis
        self.writes_left = writes

    def __getattr__(self, name: str) -> object:
        if name in ("set", "hset", "pipeline"):
            self.writes_left -= 1
            if self.writes_left < 0:
                raise KeyboardInterrupt
        return getattr(self._redis, name)


def test_everything_is_sealed_with_the_new_key_and_the_old_one_opens_nothing(farm: Farm):
    assert farm.secrets(OLD) == EXPECTED
    assert reseal_all(farm.redis, [Unsealer(OLD)], Unsealer(NEW)) == 3
    assert farm.secrets(NEW) == EXPECTED
    with pytest.raises(WrongSecretKey):
        farm.secrets(OLD)


@pytest.mark.parametrize("writes", range(5))
def test_interrupted_change_lets_no_process_start_and_is_finished_by_the_next_run(farm: Farm, writes: int):
    with pytest.raises(KeyboardInterrupt):
        reseal_all(InterruptingRedis(farm.redis, writes), [Unsealer(OLD)], Unsealer(NEW))  # type: ignore[arg-type]
    if writes:
        for key in (OLD, NEW):
            with pytest.raises(WrongSecretKey, match="rekey"):
                farm.secrets(key)
        with pytest.raises(FarmError, match="with that key first"):
            reseal_all(farm.redis, [Unsealer(OLD)], Unsealer("yet another key that is long enough"))
    else:
        assert farm.secrets(OLD) == EXPECTED
    reseal_all(farm.redis, [Unsealer(OLD)], Unsealer(NEW))
    assert farm.secrets(NEW) == EXPECTED


def test_value_that_no_key_opens_stops_the_change_before_it_begins(farm: Farm):
    strange = Unsealer("the key of nobody").sealer.seal("token", farm.ids[2])
    before = farm.redis.hget(keys.credential(farm.ids[0]), "sealed")
    farm.redis.hset(keys.credential(farm.ids[2]), "sealed", strange)
    with pytest.raises(WrongSecretKey, match=f"{farm.ids[2]} .* nothing was changed"):
        reseal_all(farm.redis, [Unsealer(OLD)], Unsealer(NEW))
    assert farm.redis.hget(keys.credential(farm.ids[0]), "sealed") == before
    assert not farm.redis.exists(keys.NEXT_SEALING_KEY)


def test_wrong_old_key_changes_nothing(farm: Farm):
    with pytest.raises(WrongSecretKey, match="nothing was changed"):
        reseal_all(farm.redis, [Unsealer("the key of nobody")], Unsealer(NEW))
    assert farm.secrets(OLD) == EXPECTED


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def run_command(redis_url: str, data: Path, *arguments: str, stdin: str = "", **settings: str) -> Result:
    environment = {"REDIS_URL": redis_url, "FARM_DATA_DIR": str(data), **settings}
    return CliRunner().invoke(rekey, arguments, input=stdin, env=environment)


def test_command_replaces_the_key_in_the_data_dir(redis: Redis, redis_url: str, tmp_path: Path):
    old = read_or_create_key(tmp_path)
    farm = Farm(redis, old)
    result = run_command(redis_url, tmp_path)
    assert result.exit_code == 0, result.output
    assert "3 credentials are sealed with the new key" in result.output
    new = read_or_create_key(tmp_path)
    assert (tmp_path / OLD_KEY_FILE).read_text().strip() == old != new
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert farm.secrets(new) == EXPECTED


@pytest.mark.parametrize("crash", ["before the files", "between the files"])
def test_command_that_was_interrupted_goes_on(
    redis: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: str
):
    farm = Farm(redis, read_or_create_key(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(rekey_command, "is_rekeyed", interrupt)
        assert run_command(redis_url, tmp_path).exit_code != 0
    if crash == "between the files":
        (tmp_path / KEY_FILE).replace(tmp_path / OLD_KEY_FILE)
    result = run_command(redis_url, tmp_path)
    assert result.exit_code == 0, result.output
    assert not (tmp_path / NEW_KEY_FILE).exists()
    assert farm.secrets(read_or_create_key(tmp_path)) == EXPECTED


def test_command_takes_the_new_key_of_a_farm_whose_key_is_a_setting(farm: Farm, redis_url: str, tmp_path: Path):
    assert "--new-key-file" in run_command(redis_url, tmp_path, FARM_SECRET_KEY=OLD).output
    short = run_command(redis_url, tmp_path, "--new-key-file", "-", stdin="short\n", FARM_SECRET_KEY=OLD)
    assert "32 characters" in short.output
    result = run_command(redis_url, tmp_path, "--new-key-file", "-", stdin=f"{NEW}\n", FARM_SECRET_KEY=OLD)
    assert "now set FARM_SECRET_KEY" in result.output
    assert farm.secrets(NEW) == EXPECTED


@pytest.mark.parametrize("kind", [keys.PROCESSES, keys.RETIRING_PROCESSES, keys.FRONTS])
def test_command_refuses_while_a_process_runs(
    farm: Farm, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    monkeypatch.setattr(rekey_command, "require_stopped", lambda redis: rekeying.require_stopped(redis, 0.3))
    farm.redis.zadd(kind, {"somebody": time.time()})
    result = run_command(redis_url, tmp_path, "--new-key-file", "-", stdin=f"{NEW}\n", FARM_SECRET_KEY=OLD)
    assert (result.exit_code, "stop the farm on every host" in result.output) == (1, True)
    assert farm.secrets(OLD) == EXPECTED
    assert farm.redis.get(keys.SEALING_KEY) != encode_public_key(derive(NEW))
