"""The state of one simulated upstream. No I/O."""

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

from simulator.accounts import Accounts
from simulator.allowances import Allowances
from simulator.faults import Faults
from simulator.sign_in.grants import SignInGrants
from simulator.sign_in.id_tokens import IdTokenSigner
from simulator.token_endpoint.token_rules import TokenRules


@dataclass
class Pace:
    """How long responses take."""

    #: Seconds before a response, or before a stream's first event.
    delay: float = 0
    #: Text events per stream.
    chunks: int = 8
    #: Seconds between two text events.
    chunk_delay: float = 0


@dataclass
class Simulation:
    """Accounts, pace, faults and counters of the upstream."""

    accounts: Accounts
    pace: Pace = field(default_factory=Pace)
    faults: Faults = field(default_factory=Faults)
    allowances: Allowances = field(default_factory=Allowances)
    sign_ins: SignInGrants = field(default_factory=SignInGrants)
    id_tokens: IdTokenSigner = field(init=False)
    #: Of its own address: `http` or `https`.
    scheme: str = "http"
    #: Rules of each token endpoint by its name: that of /oauth/token is '', that of /oauth/token/a is `a`.
    token_rules: defaultdict[str, TokenRules] = field(default_factory=lambda: defaultdict(TokenRules))
    counters: Counter[str] = field(default_factory=Counter)
    #: Whether the ends of requests are recorded in `ended`.
    is_traced: bool = False
    #: Last message and end time (seconds since the epoch) of the latest requests.
    ended: deque[tuple[str, float]] = field(default_factory=lambda: deque(maxlen=20_000))

    #: The latest requests to the API and the token endpoints, as they came; None until someone asks for them.
    received: deque[dict[str, str]] | None = None

    def __post_init__(self) -> None:
        self.id_tokens = IdTokenSigner(self.accounts.seed)
