// The colours of a figure that plotly.js draws: names of CSS tokens become their values. Stands before what draws.
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
