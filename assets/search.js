// Draws the recipes that a search has measured, from props.value, with plotly.js; colours.js stands before it. A click on
// a point triggers 'click' with its number.
const points = element.querySelector('.points');
const title = element.querySelector('.plot-title');
let width = 0; // of the last drawing

function draw() {
  points.hidden = title.hidden = !props.value;
  if (!props.value) return;
  const { data, layout } = JSON.parse(props.value);
  const shown = coloured(layout);
  shown.width = width = points.clientWidth;
  shown.font.family = shown.hoverlabel.font.family = getComputedStyle(element).fontFamily;
  if (width < 560) {
    shown.margin.l = 54;
    shown.height += 40;
  }
  title.textContent = layout.meta.title;
  Plotly.react(points, data.map(coloured), shown, { displayModeBar: false, doubleClick: false }).then(() => {
    points.dataset.drawn = String(layout.meta.points);
    if (points.dataset.bound) return;
    points.dataset.bound = 'yes';
    points.on('plotly_click', (event) => {
      const chosen = event.points.find((point) => point.customdata !== undefined);
      if (chosen) trigger('click', { point: chosen.customdata });
    });
  });
}

watch(['value'], draw);
new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ['class'] });
new ResizeObserver(() => element.clientWidth && points.clientWidth !== width && draw()).observe(element);
draw();
