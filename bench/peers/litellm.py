"""LiteLLM's proxy: a deployment for each account that takes one request, its admission queue in front, and retries.

Its limits live in a cache of 200 entries, so it keeps accounts apart up to about 190; more are not measured.
"""

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.compare.system import Running
from bench.farm import KEY, free_port
from bench.peers.places import process, python_place, serving
from bench.upstream import Upstream

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


def start(upstream: Upstream, folder: Path, stack: ExitStack) -> Running:
    """One process: several would not know of each other's requests."""
    place = python_place("litellm", f"litellm[proxy]=={VERSION}", "httptools")
    port = free_port()
    file = folder / "litellm.yaml"
    # JSON is YAML.
    file.write_text(json.dumps(config(upstream.access_tokens(), f"{upstream.url}/v1"), indent=1))
    command = [str(place / "litellm"), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    began = time.perf_counter()
    running = stack.enter_context(
        process(
            [*command, "--num_workers", "1"],
            folder / "litellm.log",
            f"http://127.0.0.1:{port}/health/readiness",
            cwd=folder,
            environment={**ENVIRONMENT, "PATH": f"{place}:{os.environ['PATH']}"},
        )
    )
    return serving(port, upstream, began, [running])


def config(tokens: list[str], url: str) -> dict[str, Any]:
    """Its best settings for exclusive accounts."""
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
            "master_key": KEY,
            "disable_spend_logs": True,
            "disable_error_logs": True,
            "disable_model_info_refresh": True,
            "max_in_flight_requests_per_worker": len(tokens),
            "max_queued_requests_per_worker": 100_000,
            "admission_queue_timeout_seconds": 120,
        },
    }
