"""The templates, for the pages that are served and for those that are written to a file."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from ifas.core.measures import MEASURES, SLICE_KINDS
from ifas.core.taxonomy import SPOOF_TYPES
from ifas.review import shown


@cache
def templates() -> jinja2.Environment:
    """All templates; what is put into them is escaped, and what they lack is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("ifas.review"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "age": shown.age,
        "moment": shown.moment,
        "title_of": shown.title,
        "about": shown.about,
        "slice_name": shown.slice_name,
        "duration": shown.duration,
        "figure_value": shown.value,
        "interval_of": shown.interval,
    }
    made.filters.update(filters)
    made.globals.update(
        dash=shown.DASH, states=shown.STATES, measures=MEASURES, spoof_types=SPOOF_TYPES, slice_kinds=SLICE_KINDS
    )
    return made


def style() -> Markup:
    """The style of all pages, for a page that loads nothing."""
    return Markup((resources.files("ifas.review") / "assets" / "review.css").read_text(encoding="utf-8"))  # noqa: S704
