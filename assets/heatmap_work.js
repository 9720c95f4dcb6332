// Working in the map, after heatmap.js in the same scope: the mode, dragging, keys, undo and redo.
// What is done goes to the server as one message, {ask, actions}; what is done while it answers waits and goes together.
const tools = element.querySelector('.map-tools');
const frame = element.querySelector('.plot-frame');
const chosen = element.querySelector('.chosen'); // the outline of the cells that are pointed at
const spoken = element.querySelector('.spoken');
const LOST_MS = 20000; // an answer that has not come by then will not come
let anchor = null; // {row, expert}: where a selection began
let area = null; // {rows: [first, last], experts: [first, last]}: what is outlined
let drag = null; // {zone, row, expert}: where the pointer went down

const mode = () => tools.querySelector('input:checked').value;
const within = (value, count) => Math.min(Math.max(value, 0), count - 1);
const sorted = (one, other) => [Math.min(one, other), Math.max(one, other)];

// ---- messages

const waiting = [];
let work = { answered: 0 }; // what the server said last: see work_json in components/heatmap.py
let asked = 0;
let open = 0; // the message that has no answer yet
let patience = 0;

function act(...actions) {
  waiting.push(...actions);
  send();
}

function send() {
  if (open || !waiting.length) return;
  asked = Math.max(asked, work.answered) + 1;
  open = asked;
  patience = setTimeout(answered, LOST_MS, open);
  trigger('select', { ask: asked, actions: waiting.splice(0) });
}

function answered(which) {
  if (which < open) return;
  clearTimeout(patience);
  open = 0;
  send();
}

// ---- what can be undone, and what is said by hand

function showWork() {
  work = JSON.parse(props.work);
  const { undo, redo, said } = work;
  for (const [name, label, what] of [['undo', 'Undo', undo], ['redo', 'Redo', redo]]) {
    const button = tools.querySelector(`.${name}`);
    button.setAttribute('aria-disabled', String(!what));
    button.title = what ? `${label}: ${what}` : `Nothing to ${name}`;
  }
  element.querySelector('.by-hand').textContent = said;
  answered(work.answered);
}

for (const name of ['undo', 'redo'])
  tools.querySelector(`.${name}`).addEventListener('click', (event) => {
    if (event.currentTarget.getAttribute('aria-disabled') !== 'true' || open) act({ do: name });
  });

// ---- where things are

// The cell under a pointer, and whether it is on the cells, the labels of rows, or those of columns.
function spot(event) {
  const { xaxis, yaxis } = plot._fullLayout;
  const { layers, experts } = figure.layout.meta;
  const box = plot.getBoundingClientRect();
  const x = (event.clientX - box.left - xaxis._offset) / xaxis._length;
  const y = (event.clientY - box.top - yaxis._offset) / yaxis._length;
  const zone = x >= 0 && x <= 1 ? (y < 0 ? null : y <= 1 ? 'cells' : 'columns') : x < 0 && y >= 0 && y <= 1 ? 'rows' : null;
  return {
    zone,
    row: within(Math.floor(y * layers.length), layers.length),
    expert: within(Math.floor(x * experts), experts),
  };
}

function between(from, to, zone) {
  const { layers, experts } = figure.layout.meta;
  return {
    rows: zone === 'columns' ? [0, layers.length - 1] : sorted(from.row, to.row),
    experts: zone === 'rows' ? [0, experts - 1] : sorted(from.expert, to.expert),
  };
}

function outline(cells) {
  area = cells;
  placeOutline();
}

function placeOutline() {
  chosen.hidden = !area || !figure || !plot._fullLayout;
  if (chosen.hidden) return;
  const { xaxis, yaxis } = plot._fullLayout;
  const wide = xaxis._length / figure.layout.meta.experts;
  const high = yaxis._length / figure.layout.meta.layers.length;
  const { rows, experts } = area;
  chosen.style.left = `${xaxis._offset + wide * experts[0]}px`;
  chosen.style.top = `${yaxis._offset + high * rows[0]}px`;
  chosen.style.width = `${wide * (experts[1] - experts[0] + 1)}px`;
  chosen.style.height = `${high * (rows[1] - rows[0] + 1)}px`;
}

// ---- pointer

tools.addEventListener('change', () => {
  plot.classList.toggle('working', mode() !== 'look');
});

plot.addEventListener('pointerdown', (event) => {
  if (!figure || mode() === 'look' || event.button !== 0) return;
  const at = spot(event);
  if (!at.zone) return;
  event.preventDefault(); // plotly hears of no click then, and the page does not scroll
  plot.focus({ preventScroll: true });
  plot.setPointerCapture(event.pointerId);
  drag = anchor = cursor = at;
  outline(between(at, at, at.zone));
}, true);

plot.addEventListener('pointermove', (event) => {
  if (!figure || mode() === 'look' || !plot._fullLayout) return;
  const at = spot(event);
  plot.classList.toggle('on-cells', Boolean(drag || at.zone));
  if (drag) outline(between(drag, (cursor = at), drag.zone));
  else if (at.zone && at.zone !== 'cells') outline(between(at, at, at.zone));
});

plot.addEventListener('pointerup', () => {
  if (!drag) return;
  drag = null;
  act({ do: mode(), ...area });
});

plot.addEventListener('pointercancel', () => {
  drag = null;
  outline(null);
});

// ---- keys

const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const words = { k: 'keep', d: 'drop', r: 'release' };

function choose(row, expert, extend) {
  const { layers, experts } = figure.layout.meta;
  cursor = { row: within(row, layers.length), expert: within(expert, experts) };
  if (!extend || !anchor) anchor = cursor;
  outline(between(anchor, cursor, 'cells'));
  say();
}

function say() {
  const { layers } = figure.layout.meta;
  const names = area.rows.map((row) => layers[row]);
  const range = (noun, [first, last]) => (first === last ? `${noun} ${first}` : `${noun}s ${first} to ${last}`);
  spoken.textContent = `${range('Layer', names)}, ${range('expert', area.experts)}`;
}

function onKey(event) {
  if (!figure) return false;
  const step = steps[event.key];
  const key = event.key.toLowerCase();
  const command = event.ctrlKey || event.metaKey;
  if (command && (key === 'z' || key === 'y')) act({ do: key === 'y' || event.shiftKey ? 'redo' : 'undo' });
  else if (command && key !== ' ') return false;
  else if (step) choose(...(cursor ? [cursor.row + step[0], cursor.expert + step[1]] : [0, 0]), event.shiftKey);
  else if (key === 'escape') {
    drag = null;
    anchor = cursor;
    outline(cursor && between(cursor, cursor, 'cells'));
    if (cursor) say();
  } else if (!area) return false;
  else if (key === ' ' && (event.shiftKey || command)) {
    outline(between(cursor, cursor, command ? 'columns' : 'rows'));
    say();
  } else if (words[key]) act({ do: words[key], ...area });
  else if (key !== 'enter' && key !== ' ') return false;
  else if (mode() === 'look') trigger('click', { row: cursor.row, expert: cursor.expert });
  else act({ do: mode(), ...area });
  return true;
}

plot.addEventListener('keydown', (event) => {
  if (onKey(event)) event.preventDefault();
});

watch(['work'], showWork);
showWork();

watch(['value', 'marks'], draw);
new MutationObserver(() => figure && paint()).observe(document.body, { attributes: true, attributeFilter: ['class'] });
draw();
