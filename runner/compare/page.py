"""A comparison as a page: the verdict, the table, the drawings, and rows side by side."""

from runner.compare.rows import SideBySide
from runner.compare.verdict import Comparison, table
from runner.pages.base import ENVIRONMENT


def html(found: Comparison, drawings: str, rows: SideBySide | None = None) -> str:
    """Return the page, with drawings (SVG) and the rows side by side, if there are answers to show."""
    head, lines = table(found)
    return _PAGE.render(title=found.verdict, found=found, head=head, lines=lines, drawings=drawings, side=rows)


# `drawings | safe` is our own: matplotlib draws text as outlines, and escapes names in its comments.
_PAGE = ENVIRONMENT.from_string("""{% extends "frame.html" %}
{% block content %}
{% include "table.html" %}
<ul>{% for sentence in found.sentences %}<li>{{ sentence | folded }}.</li>{% endfor %}</ul>
<div class="figures">{{ drawings | safe }}</div>
{% if side %}{% include "rows.html" %}{% endif %}
{% endblock %}
""")
