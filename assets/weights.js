// One slider and one number per class; props.value is JSON: [{"name": …, "label": …, "weight": …}, …].
// The rows are built here and not by a template, because class names come from files of others.
const list = element.querySelector('.weights-rows');
let rows = [];

// The slider goes to 5 in quarters; the number says exactly what counts, and may be anything from 0.
function input(type, weight, name) {
  const made = document.createElement('input');
  Object.assign(made, { type, min: '0', step: type === 'range' ? '0.25' : 'any' });
  if (type === 'range') made.max = '5';
  made.value = String(weight);
  made.setAttribute('aria-label', `Weight of ${name}` + (type === 'range' ? '' : ', as a number'));
  return made;
}

function row({ name, label: text, weight }) {
  const line = document.createElement('div');
  line.className = 'weight';
  const label = document.createElement('span');
  label.textContent = text;
  const slider = input('range', weight, text);
  const number = input('number', weight, text);
  const made = { name, text, weight, slider, number };
  const set = (from, to) => {
    const value = Number(from.value);
    if (from.value === '' || !(value >= 0 && value < Infinity)) return;
    made.weight = value;
    to.value = String(value);
    tell();
  };
  slider.addEventListener('input', () => set(slider, number));
  number.addEventListener('input', () => set(number, slider));
  number.addEventListener('blur', () => (number.value = String(made.weight))); // what is no weight goes back
  line.append(label, slider, number);
  list.append(line);
  return made;
}

function tell() {
  props.value = JSON.stringify(rows.map(({ name, text, weight }) => ({ name, label: text, weight })));
  trigger('input');
}

function show() {
  const wanted = JSON.parse(props.value || '[]');
  if (wanted.map((one) => one.name).join('\n') !== rows.map((one) => one.name).join('\n') || !rows.length) {
    list.replaceChildren();
    rows = wanted.map(row);
    return;
  }
  wanted.forEach(({ weight }, index) => {
    rows[index].weight = weight;
    rows[index].slider.value = String(weight);
    if (document.activeElement !== rows[index].number) rows[index].number.value = String(weight);
  });
}

watch(['value'], show);
show();
