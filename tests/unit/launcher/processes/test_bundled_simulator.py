"""The bundled simulator keeps its port over restarts, also after one that failed."""

import os
import socket

import pytest

from launcher.processes.bundled_simulator import SimulatorProcess
from shared.errors import FarmError


def test_failed_restart_keeps_the_port():
    simulator = SimulatorProcess(dict(os.environ))
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        url = f"http://127.0.0.1:{busy.getsockname()[1]}"
        simulator.base_url = url
        with pytest.raises(FarmError, match="simulator does not start"):
            simulator.start()
        assert simulator.base_url == url
    process = simulator.start()
    process.kill()
    process.wait()
    assert process.stdout
    process.stdout.close()
    assert simulator.base_url == url
