"""A farm with a farm.toml of the test, in front of two simulators."""

from pathlib import Path

from tests.environment import clean_environment, free_port
from tests.system.farm import ADMIN, KEY, Farm, chat_body
from tests.upstream import Upstream, first_refresh_tokens

#: Credentials of the pool `one`; its upstream's other accounts are for the pools that tests add.
OWN_ACCOUNTS = 2
POOL_TEMPLATE = """
[pools.{name}]
upstream_url = "{upstream.url}"
token_url = "{upstream.token_url}"
refresh_tokens_file = "{tokens}"
models = ["{model}"]
"""


class PoolFarm:
    """A farm whose pool `one` serves the model `alpha`."""

    def __init__(self, home: Path, upstreams: list[Upstream]) -> None:
        self.home = home
        self.upstreams = upstreams
        (home / "tokens.txt").write_text("\n".join(first_refresh_tokens(OWN_ACCOUNTS)))
        self.first_settings = (
            f'admin_token = "{ADMIN}"\n'
            + self.pool("one", 0, "alpha")
            + 'slots = 2\nmap_back = true\nmodel_map = {"mine" = "alpha"}\n'
        )
        self.write(self.first_settings)
        settings = {"FARM_CONFIG": str(home / "farm.toml"), "FARM_DATA_DIR": str(home / "data"), "FARM_API_KEY": KEY}
        port = free_port()
        environment = clean_environment(PORT=str(port), **settings)
        self.farm = Farm(f"http://127.0.0.1:{port}", environment, home / "data", upstreams[0])

    def pool(self, name: str, upstream: int, model: str) -> str:
        return POOL_TEMPLATE.format(
            name=name, upstream=self.upstreams[upstream], tokens=self.home / "tokens.txt", model=model
        )

    def write(self, text: str) -> None:
        (self.home / "farm.toml").write_text(text)

    def read(self) -> str:
        return (self.home / "farm.toml").read_text()

    def admin_status(self, token: str) -> int:
        return self.farm.get("/admin/api/v1/live", key=token).status_code

    def chat(self, model: str, **fields: object) -> dict[str, object]:
        response = self.farm.post("/v1/chat/completions", {**chat_body("Hello"), "model": model, **fields})
        return {"status": response.status_code, "model": response.json().get("model")}
