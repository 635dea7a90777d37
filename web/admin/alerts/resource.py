"""Admin API: alerts. A worker process sends them; the front never has the receivers' URLs."""

from shared.alerts.notices import Translate
from shared.alerts.store import read_status
from shared.errors import ApiError
from shared.protocol.credential_operations import TEST_ALERTS, CredentialOperation, NoWorkerProcess
from web.admin.alerts.schemas import AlertReceiver, AlertState, AlertTest, RaisedAlert
from web.admin.api import router
from web.admin.audit_log import record_change
from web.admin.schemas.fields import Empty
from web.services import services


@router.route("GET", "/alerts", response=AlertState)
def list_alerts() -> AlertState:
    """List what is wrong now, of what the farm alerts, and how far the receivers have been told."""
    return describe_alerts(str)


def describe_alerts(translate: Translate) -> AlertState:
    """The same in the language of the translation."""
    status = read_status(services().redis)
    return AlertState(
        is_watched=status.is_watched,
        alerts=[
            RaisedAlert(
                rule=alert.rule,
                pool=alert.pool,
                subject=alert.subject,
                text=alert.describe(translate),
                since=alert.since,
            )
            for alert in status.alerts
        ],
        receivers=[
            AlertReceiver(
                id=id_,
                name=receiver.name,
                waiting=status.waiting[id_],
                delivered_at=receiver.delivered_at,
                failed_since=receiver.failed_since,
                retry_at=receiver.retry_at,
                error=receiver.error,
            )
            for id_, receiver in status.receivers.items()
        ],
    )


@router.route("POST", "/alerts/test", body=Empty, response=AlertTest)
def send_test(body: Empty) -> AlertTest:
    """Send a test to every receiver of alerts, and wait for what becomes of it."""
    record_change("alert.test", "")
    try:
        return AlertTest(**services().operations.request(CredentialOperation("", "", TEST_ALERTS)))
    except NoWorkerProcess as error:
        raise ApiError(503, "no_worker", str(error), "server_error") from None
