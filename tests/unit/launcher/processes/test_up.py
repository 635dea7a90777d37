"""The record of a running farm."""

from pathlib import Path

from launcher.processes.data_dir import DataDir
from launcher.processes.up import Farm
from shared.settings.schema import Settings
from tests import internals


def test_record_keeps_the_start_time_when_it_is_written_again(tmp_path: Path):
    farm = Farm(Settings(data_dir=str(tmp_path)), DataDir(str(tmp_path)), print)
    started = []
    for _ in range(2):
        internals.write_record(farm)
        record = farm.data.read_record()
        assert record
        started.append(record.started_at)
    assert started == [farm.started_at] * 2
