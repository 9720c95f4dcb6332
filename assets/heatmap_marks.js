// Draws what lies on the cells, after heatmap.js in the same scope: dropped ones veiled and hatched, a frame around what
// is kept by hand, a cross on what is dropped by hand. On a canvas: plotly takes a tenth of a second for as many shapes.
const canvas = document.createElement('canvas');
canvas.className = 'marks';

// Three masks [layers, experts] of a bit per cell, one after the other, as figures.marks packs them.
function masks(packed, layers, experts) {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const size = layers * experts;
  return [0, 1, 2].map((which) => (row, expert) => {
    const bit = which * size + row * experts + expert;
    return (bytes[bit >> 3] >> (7 - (bit & 7))) & 1;
  });
}

function placeMarks() {
  const labels = plot.querySelectorAll('.main-svg')[1]; // with what is shown under the pointer: it stays on top
  if (!figure || !plot._fullLayout || !labels) return;
  if (canvas.nextSibling !== labels) labels.before(canvas);
  const { xaxis, yaxis } = plot._fullLayout;
  const { layers, experts } = figure.layout.meta;
  const sharp = devicePixelRatio || 1;
  canvas.width = Math.round(xaxis._length * sharp); // which clears it
  canvas.height = Math.round(yaxis._length * sharp);
  canvas.style.cssText = `left:${xaxis._offset}px;top:${yaxis._offset}px;width:${xaxis._length}px;height:${yaxis._length}px`;
  const pen = canvas.getContext('2d');
  pen.scale(sharp, sharp);
  drawMarks(pen, xaxis._length / experts, yaxis._length / layers.length, layers.length, experts);
}

function drawMarks(pen, wide, high, layers, experts) {
  const [dropped, keep, drop] = masks(figure.layout.meta.cells, layers, experts);
  const veil = new Path2D();
  const hatch = new Path2D();
  const frames = new Path2D();
  const crosses = new Path2D();
  for (let row = 0; row < layers; row += 1) {
    for (const [mask, path] of [[dropped, veil], [keep, frames]])
      for (const [from, to] of runs(mask, row, experts)) path.rect(from * wide, row * high, (to - from) * wide, high);
    for (let expert = 0; expert < experts; expert += 1) {
      if (dropped(row, expert)) stroke(hatch, expert, row, 0.3, -0.3);
      if (!drop(row, expert)) continue;
      stroke(crosses, expert, row, 0.36, -0.36);
      stroke(crosses, expert, row, 0.36, 0.36);
    }
  }
  pen.fillStyle = token('--veil');
  pen.globalAlpha = 0.8;
  pen.fill(veil);
  pen.globalAlpha = 1;
  ink(hatch, '--hatch', 1.25);
  for (const path of [frames, crosses]) {
    ink(path, '--card', 4); // the light line under the dark one shows them on every colour
    ink(path, '--ink', 1.75);
  }

  function stroke(path, expert, row, across, down) {
    const [x, y] = [expert + 0.5, row + 0.5];
    path.moveTo((x - across) * wide, (y - down) * high);
    path.lineTo((x + across) * wide, (y + down) * high);
  }

  function ink(path, colour, width) {
    pen.strokeStyle = token(colour);
    pen.lineWidth = width;
    pen.stroke(path);
  }
}

// [first, after the last] of every run of marked cells in a row.
function runs(mask, row, experts) {
  const found = [];
  for (let expert = 0, from = -1; expert <= experts; expert += 1) {
    const marked = expert < experts && mask(row, expert);
    if (marked && from < 0) from = expert;
    if (marked || from < 0) continue;
    found.push([from, expert]);
    from = -1;
  }
  return found;
}
