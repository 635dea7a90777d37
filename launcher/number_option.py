"""The type of options that are numbers."""

import math
from typing import Any

import click


class NumberRange(click.FloatRange):
    """Numbers within bounds, without what Python calls one and is none: no comparison refuses `nan`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number
