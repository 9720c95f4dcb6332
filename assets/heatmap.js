// Draws the figure in props.value with plotly.js, again whenever it or the colours change.
// A click, or Enter on the cell chosen with the arrow keys, triggers 'click' with the row and the expert.
const plot = element.querySelector('.plot');
const title = element.querySelector('.plot-title');
const config = { responsive: true, displayModeBar: false, doubleClick: false };
let figure = null;
let drawnData = ''; // what the cells were last drawn from
let cursor = null; // {row, expert}: where the arrow keys are

function token(name) {
  return getComputedStyle(element).getPropertyValue(name).trim();
}

// Replaces every "--name" by the value of that CSS token; packed arrays are left alone.
function coloured(part) {
  if (typeof part === 'string') return part.startsWith('--') ? token(part) : part;
  if (Array.isArray(part)) return part.every((one) => typeof one === 'number') ? part : part.map(coloured);
  if (part === null || typeof part !== 'object' || part.bdata) return part;
  return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, coloured(value)]));
}

// What marks dropped cells, and an outline around the cell of the arrow keys.
function shapes() {
  const marks = coloured(figure.layout.shapes);
  if (!cursor) return marks;
  const { row, expert } = cursor;
  const line = { color: token('--ink'), width: 2 };
  return [...marks, { type: 'rect', x0: expert - 0.5, x1: expert + 0.5, y0: row - 0.5, y1: row + 0.5, line }];
}

function draw() {
  if (!props.value) {
    clear();
    return;
  }
  const next = JSON.parse(props.value);
  const data = JSON.stringify(next.data);
  const onlyMarks = data === drawnData && next.layout.meta.title === figure.layout.meta.title;
  figure = next;
  drawnData = data;
  if (onlyMarks) mark();
  else paint();
}

// Without an analysis there is nothing to draw.
function clear() {
  title.textContent = title.dataset.empty;
  if (!figure) return;
  Plotly.purge(plot);
  delete plot.dataset.bound;
  figure = cursor = null;
  drawnData = '';
}

// Everything, from the start.
function paint() {
  const layout = coloured(figure.layout);
  if (plot.clientWidth < 560) {
    layout.margin.l = 38;
    layout.xaxis.title.text = 'Expert';
  }
  layout.font.family = layout.hoverlabel.font.family = getComputedStyle(element).fontFamily;
  layout.shapes = shapes();
  title.textContent = layout.meta.title;
  Plotly.react(plot, figure.data.map(coloured), layout, config).then(drawn);
}

// The marks of dropped cells and the cursor only: some milliseconds instead of a hundred on a large grid.
function mark() {
  plot.layout.meta = figure.layout.meta;
  return Plotly.relayout(plot, { shapes: shapes() }).then(drawn);
}

function drawn() {
  plot.dataset.drawn = String(Number(plot.dataset.drawn || 0) + 1);
  plot.dataset.dropped = String(figure.layout.meta.dropped);
  if (!plot.dataset.bound) bind();
}

function choose(row, expert) {
  const { layers, experts } = figure.layout.meta;
  cursor = { row: Math.min(Math.max(row, 0), layers.length - 1), expert: Math.min(Math.max(expert, 0), experts - 1) };
  mark();
}

function bind() {
  plot.dataset.bound = 'yes';
  plot.on('plotly_click', (event) => {
    const { x, y } = event.points[0];
    choose(y, x);
    trigger('click', { row: y, expert: x });
  });
}

const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
plot.addEventListener('keydown', (event) => {
  if (!figure) return;
  const step = steps[event.key];
  const asked = event.key === 'Enter' || event.key === ' ';
  if (!step && !asked) return;
  event.preventDefault();
  if (step) choose(...(cursor ? [cursor.row + step[0], cursor.expert + step[1]] : [0, 0]));
  else if (cursor) trigger('click', { ...cursor });
});

watch(['value'], draw);
new MutationObserver(() => figure && paint()).observe(document.body, { attributes: true, attributeFilter: ['class'] });
draw();
