"""Alerts on the page of the system: what is wrong now, who is told of it, and a test."""

from typing import Any

from web.admin.alerts import resource
from web.admin.schemas.fields import Empty
from web.console.parts.blueprint import blueprint, render_page
from web.languages.translation import gettext


def read_alerts() -> dict[str, Any]:
    """What the part of the page shows."""
    return {"alerts": resource.describe_alerts(gettext)}


@blueprint.post("/system/alerts/test")
def test_alerts() -> str:
    """Sends a test to every receiver, and shows what has become of it."""
    return render_page("alert_test.html", active="system", tested=resource.send_test(Empty()))
