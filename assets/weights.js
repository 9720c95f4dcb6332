// One slider and one number per class; props.value is JSON: [{"name": …, "label": …, "weight": …}, …].
// The rows are built here and not by a template, because class names come from files of others.
const list = element.querySelector('.weights-rows');
let rows = [];

function input(type, weight, name) {
  const made = document.createElement('input');
  Object.assign(made, { type, min: '0', max: '5', step: '0.25', value: String(weight) });
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
  const set = (from, to) => {
    const value = Math.min(Math.max(Number(from.value) || 0, 0), 5);
    to.value = String(value);
    tell();
  };
  slider.addEventListener('input', () => set(slider, number));
  number.addEventListener('input', () => set(number, slider));
  line.append(label, slider, number);
  list.append(line);
  return { name, text, slider, number };
}

function tell() {
  props.value = JSON.stringify(rows.map(({ name, text, slider }) => ({ name, label: text, weight: Number(slider.value) })));
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
    rows[index].slider.value = String(weight);
    if (document.activeElement !== rows[index].number) rows[index].number.value = String(weight);
  });
}

watch(['value'], show);
show();
