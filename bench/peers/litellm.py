"""LiteLLM's proxy with a deployment per account, one request each, its admission queue, and retries.

Its limits live in a cache of 200 entries and hold up to about 190 accounts; more are not measured.
"""

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.compare.system import RunningSystem
from bench.farm import API_KEY, find_free_port
from bench.peers.installation import install_python_packages
from bench.peers.running import describe_peer, run_process
from bench.simulator import SimulatorProcess

VERSION = "1.106.2"
ENVIRONMENT = {
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "DISABLE_ADMIN_UI": "True",
    "NO_DOCS": "True",
    "NO_REDOC": "True",
    "LITELLM_DONT_SHOW_FEEDBACK_BOX": "true",
    "AIOHTTP_CONNECTOR_LIMIT": "10000",
    "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": "10000",
}


def start(upstream: SimulatorProcess, folder: Path, stack: ExitStack) -> RunningSystem:
    """Starts a single process, because several would not share their counts of requests in flight."""
    programs = install_python_packages("litellm", f"litellm[proxy]=={VERSION}", "httptools")
    port = find_free_port()
    path = folder / "litellm.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(build_config(upstream.fetch_access_tokens(), f"{upstream.url}/v1"), indent=1))
    command = [str(programs / "litellm"), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    started = time.perf_counter()
    process = stack.enter_context(
        run_process(
            [*command, "--num_workers", "1"],
            folder / "litellm.log",
            f"http://127.0.0.1:{port}/health/readiness",
            cwd=folder,
            environment={**ENVIRONMENT, "PATH": f"{programs}:{os.environ['PATH']}"},
        )
    )
    return describe_peer(port, upstream, started, process)


def build_config(tokens: list[str], url: str) -> dict[str, Any]:
    """The best settings we know for one request per account."""
    deployments = [
        {
            "model_name": "sim-translate",
            "litellm_params": {
                "model": "openai/sim-translate",
                "api_base": url,
                "api_key": token,
                "max_parallel_requests": 1,
            },
            "model_info": {"id": f"account-{i}", "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06},
        }
        for i, token in enumerate(tokens)
    ]
    return {
        "model_list": deployments,
        "router_settings": {
            "routing_strategy": "simple-shuffle",
            "num_retries": 100_000,
            "disable_cooldowns": True,
            "timeout": 600,
        },
        "litellm_settings": {
            "set_verbose": False,
            "request_timeout": 600,
            "num_retries": 100_000,
            "default_in_memory_ttl": 86_400,
        },
        "general_settings": {
            "master_key": API_KEY,
            "disable_spend_logs": True,
            "disable_error_logs": True,
            "disable_model_info_refresh": True,
            "max_in_flight_requests_per_worker": len(tokens),
            "max_queued_requests_per_worker": 100_000,
            "admission_queue_timeout_seconds": 120,
        },
    }
