"""Adapts the RQ dashboard's templates: the browser puts what it shows of jobs into them by underscore."""

import re
from typing import Any

from jinja2.ext import Extension

FOLDER = "rq_dashboard/"
#: `<%= value %>`, which underscore does not escape, but for values that the dashboard escapes by jQuery.
UNESCAPED = re.compile(r"<%=(?!\s*\$\()")
#: An icon that the dashboard lacks, and the farm's.
MISSING_ICON, ICON = "filename='favicon.ico'", "filename='icon.svg'"


class AdaptedDashboard(Extension):
    """Makes underscore escape each value (`<%- value %>`), and shows the farm's icon."""

    def preprocess(self, source: str, name: str | None, filename: Any = None) -> str:
        if not (name or "").startswith(FOLDER):
            return source
        return UNESCAPED.sub("<%-", source).replace(MISSING_ICON, ICON)
