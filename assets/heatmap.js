// Draws the figure in props.value with plotly.js, again whenever it or the colours change, and props.marks on top of it.
// A click triggers 'click' with the row and the expert. colours.js stands before it, heatmap_marks.js and heatmap_work.js
// follow, in the same scope.
const plot = element.querySelector('.plot');
const title = element.querySelector('.plot-title');
const config = { responsive: true, displayModeBar: false, doubleClick: false };
let figure = null;
let drawnValue = ''; // what the cells were last drawn from
let cursor = null; // {row, expert}: where the arrow keys are

function draw() {
  if (!props.value) {
    clear();
    return;
  }
  const marks = JSON.parse(props.marks);
  const onlyMarks = props.value === drawnValue;
  if (!onlyMarks) figure = JSON.parse(props.value);
  drawnValue = props.value;
  Object.assign(figure.layout.meta, marks);
  if (onlyMarks) mark();
  else paint();
}

// Without an analysis there is nothing to draw.
function clear() {
  title.textContent = title.dataset.empty;
  if (!figure) return;
  Plotly.purge(plot);
  delete plot.dataset.bound;
  canvas.remove();
  figure = cursor = null;
  drawnValue = '';
  outline(null);
}

// Everything, from the start.
function paint() {
  const layout = coloured(figure.layout);
  if (plot.clientWidth < 560) {
    layout.margin.l = 38;
    layout.xaxis.title.text = 'Expert';
  }
  layout.font.family = layout.hoverlabel.font.family = getComputedStyle(element).fontFamily;
  title.textContent = layout.meta.title;
  Plotly.react(plot, figure.data.map(coloured), layout, config).then(drawn);
}

// The marks of cells only: some milliseconds instead of some hundred on a large grid.
function mark() {
  plot.layout.meta = figure.layout.meta;
  drawn();
}

function drawn() {
  placeMarks();
  plot.dataset.drawn = String(Number(plot.dataset.drawn || 0) + 1);
  plot.dataset.dropped = String(figure.layout.meta.dropped);
  if (!plot.dataset.bound) bind();
}

function bind() {
  plot.dataset.bound = 'yes';
  plot.on('plotly_afterplot', () => {
    placeOutline();
    placeMarks();
  });
  plot.on('plotly_click', (event) => {
    const { x, y } = event.points[0];
    choose(y, x);
    trigger('click', { row: y, expert: x });
  });
}
