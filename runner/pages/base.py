"""What all pages have in common: the frame with its policy, the style, rows side by side.

Answers of models are text of strangers: everything is escaped, and the page's own policy lets it load nothing.
"""

import re

from jinja2 import DictLoader, Environment
from markupsafe import Markup

# Colours once, for both themes; `--page` and `currentColor` are also what drawings use.
_STYLE = """
  :root { color-scheme: light dark; --page: #fff; --ink: #222; --quiet: #666; --line: #ddd; --soft: #f4f5f7;
          --up: #2a8a4a; --down: #c0392b; --added: #d7f3df; --missing: #fbe0dd; --gone: #844;
          --c0: #1f77b4; --c1: #d95f02; --c2: #2a8a4a; --c3: #8e44ad }
  @media (prefers-color-scheme: dark) { :root { --page: #16181c; --ink: #e4e6ea; --quiet: #a0a5ad; --line: #3a3e45;
          --soft: #22252b; --up: #58c27d; --down: #ef7f73; --added: #1d4a2c; --missing: #55231f; --gone: #e9b0aa;
          --c0: #6fb3e6; --c1: #f2a15f; --c2: #6ccb8d; --c3: #c79be0 } }
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem;
         color: var(--ink); background: var(--page); overflow-wrap: anywhere }
  h1 { font-size: 1.5rem; line-height: 1.3 } h2 { font-size: 1.2rem; margin: 2.5rem 0 .3rem }
  table { border-collapse: collapse; display: block; overflow-x: auto; overflow-wrap: normal; margin: .5rem 0 }
  th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); white-space: nowrap;
           vertical-align: top }
  td.wide { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 12rem; max-width: 44rem }
  th { font-weight: 600; color: var(--quiet) }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: .6rem .8rem;
        border-radius: 6px; font-size: .9rem }
  figure { margin: 1rem 0; max-width: 100% } .figures { display: flex; flex-wrap: wrap; gap: 1rem }
  .figures figure { margin: 0 }
  svg { max-width: 100%; height: auto; fill: currentColor }
  .quiet, .name, .note { color: var(--quiet); font-size: .85rem } p.quiet { margin: .2rem 0 .6rem }
  form { position: sticky; top: 0; background: var(--page); padding: .6rem 0; display: flex; flex-wrap: wrap;
         gap: .4rem 1.5rem; z-index: 1; border-bottom: 1px solid var(--line); align-items: baseline }
  select { font: inherit; max-width: min(20rem, 60vw) }
  .row { border: 1px solid var(--line); border-radius: 6px; margin: 1rem 0; overflow: hidden }
  .prompt { background: var(--soft); padding: .6rem .8rem } .prompt summary { cursor: pointer }
  .text { white-space: pre-wrap; overflow-wrap: anywhere }
  .cells { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr) }
  .cell { padding: .6rem .8rem; border-left: 1px solid var(--line); min-width: 0 }
  .cell:first-child { border-left: 0 }
  .cell .name { margin-bottom: .3rem; overflow-wrap: anywhere }
  .prompt .text { max-height: 14rem; overflow-y: auto } .answer { max-height: 24rem; overflow-y: auto }
  .grade { font-size: .85rem; margin-top: .4rem; padding-left: .5rem; border-left: 3px solid var(--line);
           overflow-wrap: anywhere }
  .grade.up { border-color: var(--up) } .grade.down { border-color: var(--down) }
  .reason { color: var(--quiet); white-space: pre-wrap; max-height: 8rem; overflow-y: auto }
  ins { background: var(--added); color: inherit; text-decoration: none }
  del { background: var(--missing); color: var(--gone) }
  @media (max-width: 50rem) { .cells { grid-auto-flow: row }
    .cell { border-left: 0; border-top: 1px solid var(--line) } }
  @media print { :root { color-scheme: light; --page: #fff; --ink: #000; --quiet: #444; --line: #bbb; --soft: #f2f2f2;
      --added: #d7f3df; --missing: #fbe0dd; --gone: #844; --c0: #1f77b4; --c1: #d95f02; --c2: #2a8a4a; --c3: #8e44ad }
    body { margin: 0; max-width: none } form { display: none } table { overflow: visible }
    th, td { white-space: normal } .row, figure, tr { break-inside: avoid }
    .prompt .text, .answer, .reason { max-height: none; overflow: visible } }
"""

# The only script: without it the rows are there, in their order, unfiltered.
_SCRIPT = """
  const rows = [...document.querySelectorAll('.row')], list = document.getElementById('rows');
  const grader = document.getElementById('grader'), changed = document.getElementById('changed');
  function show() {
    const one = grader.value, change = row => {
      const all = row.dataset.changes.split(',').map(Number);
      return one === '' ? Math.max(...all) : all[one];
    };
    rows.forEach(row => {
      row.hidden = changed.checked && !change(row);
      row.querySelectorAll('.grade').forEach(grade => { grade.hidden = one !== '' && grade.dataset.grader !== one; });
    });
    [...rows].sort((a, b) => change(b) - change(a)).forEach(row => list.append(row));
    document.getElementById('count').textContent = rows.filter(row => !row.hidden).length + ' shown';
  }
  grader.onchange = changed.onchange = show;
  show();
"""

# Braces are doubled where the template has its own.
_FRAME = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>{{{{ title }}}}</title>
<style>{_STYLE}</style>
<h1>{{{{ title | folded }}}}</h1>
{{% block content %}}{{% endblock %}}
</html>
"""

_ROWS = (
    """<h2>Rows side by side</h2>
<p class="quiet">{{ "{:,}".format(side.rows | length) }} of {{ "{:,}".format(side.total) }} rows, those whose scores
  are furthest apart first.
  {% if side.marked %}Words are marked against the answer of <b>{{ side.marked }}</b>: <ins>only here</ins>,
  <del>only there</del>.{% endif %}
  {% if side.left_out %}Variants not shown: {{ side.left_out }}.{% endif %}</p>
<form>
  <label>Grader <select id="grader" autocomplete="off"><option value="">all</option>
    {% for name in side.graders %}<option value="{{ loop.index0 }}">{{ name }}</option>{% endfor %}</select></label>
  <label><input type="checkbox" id="changed" autocomplete="off"> only rows whose score changed</label>
  <span class="quiet" id="count"></span>
</form>
<div id="rows">
{% for row in side.rows %}
<section class="row" data-changes="{{ row.changes | join(',') }}">
  <div class="prompt">
    {% if row.earlier %}<details><summary class="quiet">earlier turns: {{ row.earlier | length }}</summary>
    {% for turn in row.earlier %}<div class="text"><span class="name">{{ turn.role }}</span>
{{ turn.shown }}</div>{% endfor %}</details>{% endif %}
    <div class="text">{{ row.prompt }}</div>
  </div>
  <div class="cells">
  {% for cell in row.cells %}
    <div class="cell"><div class="name">{{ side.columns[loop.index0] }}</div>
    {% if cell %}
      <div class="text answer">{% for kind, text in cell.pieces %}{% if kind == "added" %}<ins>{{ text }}</ins>
{%- elif kind == "missing" %}<del>{{ text }}</del>{% else %}{{ text }}{% endif %}{% endfor %}</div>
      {% if cell.note %}<div class="note">{{ cell.note }}</div>{% endif %}
      {% for score in cell.scores %}
      <div data-grader="{{ score.grader }}"
       class="grade{{ ' up' if score.above and score.above > 0 else ' down' if score.above else '' }}">
        {{ side.graders[score.grader] }}
        <b>{{ "no score" if score.value is none else "%.3g" | format(score.value) }}</b>
        {% if score.above %}{{ "%+.3g" | format(score.above) }}{% endif %}
        {% if score.reason %}<div class="reason">{{ score.reason }}</div>{% endif %}
      </div>
      {% endfor %}
    {% else %}<div class="note">not asked</div>{% endif %}
    </div>
  {% endfor %}
  </div>
</section>
{% endfor %}
</div>
<script>"""
    + _SCRIPT
    + """</script>
"""
)

# Short cells stay on one line, and the table scrolls where there are many; long ones are folded.
_TABLE = """<table>
<tr>{% for name in head %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in lines %}<tr>{% for cell in row %}<td{{ ' class="wide"' | safe if cell | string | length > 40 else "" }}>
{{- cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
"""


def folded(text: str) -> Markup:
    """Return a text in which a line may end within a key, so that it ends within no number, and after no ±."""
    # A key wider than a phone, `dpo.learning_rate_multiplier=0.01`, would be cut at its edge, whatever is there.
    return Markup("<wbr>").join(re.split("(?<=_)", text.replace(" ± ", "\u00a0±\u00a0")))


TEMPLATES = {"frame.html": _FRAME, "rows.html": _ROWS, "table.html": _TABLE}
"""What pages extend, `frame.html` by `title`, and include: `rows.html` by `side`, `table.html` by `head`, `lines`."""
ENVIRONMENT = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=DictLoader(TEMPLATES))
ENVIRONMENT.filters["folded"] = folded
