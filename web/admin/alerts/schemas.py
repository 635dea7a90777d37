"""Models of alerts in the admin API. Times are seconds since the epoch, 0 for never."""

from typing import Annotated

from pydantic import BaseModel, Field

from shared.settings.alert_parsers import ALERT_RULES


class RaisedAlert(BaseModel):
    """Something that is wrong now, of which receivers are told."""

    rule: Annotated[str, Field(description="such as " + ", ".join(f"`{rule}`" for rule in ALERT_RULES))]
    pool: str
    subject: Annotated[str, Field(description="id of the credential or API key that it is about, '' for none")]
    text: str
    since: float


class AlertReceiver(BaseModel):
    """One of FARM_ALERT_URLS."""

    id: str
    name: Annotated[str, Field(description="its URL without secrets")]
    waiting: Annotated[int, Field(description="notices that it has not been told yet")]
    delivered_at: Annotated[float, Field(description="when it was last told, in the last hour")]
    failed_since: float
    retry_at: Annotated[float, Field(description="when it is tried again after a failure")]
    error: Annotated[str, Field(description="why the last try failed, '' if it did not")]


class AlertState(BaseModel):
    """What is wrong now, and how far the receivers have been told."""

    is_watched: Annotated[bool, Field(description="whether a worker process with FARM_ALERT_URLS watches")]
    alerts: Annotated[list[RaisedAlert], Field(description="the oldest first")]
    receivers: list[AlertReceiver]


class TestedReceiver(BaseModel):
    """What has become of a test."""

    __test__ = False
    receiver: str
    error: Annotated[str, Field(description="why it failed, '' if it did not")]


class AlertTest(BaseModel):
    """What has become of a test of all receivers."""

    ok: bool
    error: Annotated[str, Field(description="why none was sent, '' if one was")]
    results: list[TestedReceiver]
