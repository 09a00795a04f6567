"""A comparison as a self-contained page: the verdict, the table, the drawing, and rows side by side.

Answers of models are text of strangers: everything is escaped, and the page's own policy lets it load nothing.
"""

from jinja2 import Environment

from runner.compare.rows import SideBySide
from runner.compare.verdict import Comparison, table


def html(found: Comparison, drawing: str, rows: SideBySide | None = None) -> str:
    """Return the page, with a drawing (SVG) and the rows side by side, if there are answers to show."""
    head, lines = table(found)
    return _PAGE.render(found=found, head=head, lines=lines, drawing=drawing, side=rows)


_STYLE = """
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
  h1 { font-size: 1.5rem; line-height: 1.3 } h2 { font-size: 1.2rem; margin: 2.5rem 0 .3rem }
  table { border-collapse: collapse; display: block; overflow-x: auto }
  th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; white-space: nowrap }
  th { font-weight: 600; color: #666 }
  svg { max-width: 100%; height: auto }
  .quiet, .name, .note { color: #666; font-size: .85rem } p.quiet { margin: .2rem 0 .6rem }
  form { position: sticky; top: 0; background: #fff; padding: .6rem 0; display: flex; gap: 1.5rem; z-index: 1;
         border-bottom: 1px solid #ddd; align-items: baseline }
  select { font: inherit; max-width: 20rem }
  .row { border: 1px solid #ddd; border-radius: 6px; margin: 1rem 0; overflow: hidden }
  .prompt { background: #f4f5f7; padding: .6rem .8rem } .prompt summary { cursor: pointer }
  .text { white-space: pre-wrap; overflow-wrap: anywhere }
  .cells { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr) }
  .cell { padding: .6rem .8rem; border-left: 1px solid #eee; min-width: 0 } .cell:first-child { border-left: 0 }
  .cell .name { margin-bottom: .3rem; overflow-wrap: anywhere } .answer { max-height: 24rem; overflow-y: auto }
  .grade { font-size: .85rem; margin-top: .4rem; padding-left: .5rem; border-left: 3px solid #ccc;
           overflow-wrap: anywhere }
  .grade.up { border-color: #2a8a4a } .grade.down { border-color: #c0392b }
  .reason { color: #555; white-space: pre-wrap; max-height: 8rem; overflow-y: auto }
  ins { background: #d7f3df; text-decoration: none } del { background: #fbe0dd; color: #844 }
  @media (max-width: 50rem) { .cells { grid-auto-flow: row } .cell { border-left: 0; border-top: 1px solid #eee } }
"""

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

# `drawing | safe` is our own: matplotlib draws text as outlines, and escapes names in its comments.
_PAGE = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
    """<!doctype html>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>{{ found.verdict }}</title>
<style>"""
    + _STYLE
    + """</style>
<h1>{{ found.verdict }}</h1>
<table>
<tr>{% for name in head %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in lines %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
<ul>{% for sentence in found.sentences %}<li>{{ sentence }}.</li>{% endfor %}</ul>
{{ drawing | safe }}
{% if side %}
<h2>Rows side by side</h2>
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
{{ turn.content or "" }}</div>{% endfor %}</details>{% endif %}
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
{% endif %}
"""
)
