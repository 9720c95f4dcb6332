// The options of a recipe as a form; props.value is JSON of components/options.py: groups of options with their values.
// What is changed is sent as one message, {ask: number, fields: {field: value}}, and the answer is the form again, with
// that number; what is changed while it is on its way waits and goes together.
// Everything is built here and not by a template, because names of classes and analyses come from files of others.
const list = element.querySelector('.options');
let parts = new Map(); // field → {row, note, read, write}
let structure = '';
const LOST_MS = 20000; // an answer that has not come by then will not come
let waiting = {}; // what was changed and is not sent yet
let sent = {}; // what was sent and is not answered yet
let asked = 0;
let open = 0; // the message that has no answer yet
let patience = 0;

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function send(field, value) {
  waiting[field] = value;
  post();
}

function post() {
  if (open || !Object.keys(waiting).length) return;
  [sent, waiting] = [waiting, {}];
  open = asked += 1;
  patience = setTimeout(answered, LOST_MS, open);
  trigger('input', { ask: open, fields: sent });
}

function answered(which) {
  if (which !== open) return;
  clearTimeout(patience);
  open = 0;
  sent = {};
  post();
}

// A number that is being typed is not one yet; what is left unfinished goes back to what counts.
function number(how, said, tell, unset) {
  const made = make('input');
  Object.assign(made, { type: 'number', min: String(how.least), step: 'any', inputMode: 'decimal' });
  made.placeholder = unset || '';
  made.setAttribute('aria-label', said);
  made.addEventListener('input', () => {
    if (made.value === '' && !(unset && !made.validity.badInput)) return;
    tell(made.value === '' ? null : Number(made.value));
  });
  made.addEventListener('blur', () => show());
  made.addEventListener('keydown', (event) => {
    const up = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!up) return;
    event.preventDefault();
    const next = Number(made.value || 0) + up * how.step;
    made.value = String(Math.max(how.least, Number(next.toFixed(6))));
    made.dispatchEvent(new Event('input'));
  });
  return made;
}

const put = (input, value) => {
  if (document.activeElement !== input) input.value = value === null ? '' : String(value);
};

const kinds = {
  choice(how) {
    const made = make('select');
    for (const [label, value, there] of how.choices) {
      const option = make('option', '', there ? label : `${label} (not in this analysis)`);
      Object.assign(option, { value, disabled: !there });
      made.append(option);
    }
    made.addEventListener('change', () => send(how.field, made.value));
    return { body: [made], inputs: [made], write: (value) => { made.value = value; } };
  },
  number(how) {
    const made = number(how, how.label, (value) => send(how.field, value), how.unset);
    return { body: [made], inputs: [made], write: (value) => put(made, value) };
  },
  switch(how) {
    const made = make('input');
    made.type = 'checkbox';
    made.addEventListener('change', () => send(how.field, made.checked));
    return { body: [made], inputs: [made], write: (value) => { made.checked = value; } };
  },
  pair(how) {
    const tell = () => {
      const ends = made.map((input) => input.value);
      if (ends.every((end) => end !== '')) send(how.field, ends.map(Number));
    };
    const made = ['lowest', 'highest'].map((end) => number(how, `${how.label}, ${end}`, tell));
    return { body: [made[0], make('span', 'to', 'to'), made[1]], inputs: made,
      write: (value) => made.forEach((input, end) => put(input, value ? value[end] : null)) };
  },
  ticks(how) {
    const made = how.classes.map(([name, text]) => {
      const line = make('label', 'tick');
      const input = make('input');
      Object.assign(input, { type: 'checkbox', value: name });
      line.append(input, make('span', '', text));
      input.addEventListener('change', () =>
        send(how.field, made.filter((one) => one.input.checked).map((one) => one.input.value)));
      return { line, input };
    });
    return { body: made.map((one) => one.line), inputs: made.map((one) => one.input),
      write: (value) => made.forEach(({ input }) => { input.checked = value.includes(input.value); }) };
  },
  numbers(how) {
    const now = {};
    const made = how.classes.map(([name, text]) => {
      const line = make('label', 'per-class');
      const input = number(how, `${how.label}: ${text}`, (value) => {
        now[name] = value;
        send(how.field, { ...now });
      });
      line.append(make('span', '', text), input);
      return { name, line, input };
    });
    return { body: made.map((one) => one.line), inputs: made.map((one) => one.input),
      write: (value) => made.forEach(({ name, input }) => {
        now[name] = value[name];
        put(input, value[name]);
      }) };
  },
  text(how) {
    const made = make('input');
    Object.assign(made, { type: 'text', autocomplete: 'off', spellcheck: false });
    made.addEventListener('change', () => send(how.field, made.value));
    return { body: [made], inputs: [made], write: (value) => put(made, value) };
  },
};

function row({ how }) {
  const made = kinds[how.kind](how);
  const many = made.inputs.length !== 1 || how.kind === 'ticks' || how.kind === 'numbers';
  const line = make(many ? 'fieldset' : 'label', `option ${how.kind}`);
  line.dataset.field = how.field;
  const control = make('span', 'control');
  control.append(...made.body);
  const note = make('small', 'note');
  note.id = `option-note-${how.field}`;
  made.inputs.forEach((input) => input.setAttribute('aria-describedby', note.id));
  const problem = make('small', 'problem');
  problem.setAttribute('role', 'alert');
  line.append(make(many ? 'legend' : 'span', 'name', how.label), control, note, problem);
  parts.set(how.field, { ...made, line, note, problem, info: how.info });
  return line;
}

function build(groups) {
  parts = new Map();
  list.replaceChildren(...groups.map(({ title, options }) => {
    const group = make('section', 'option-group');
    const rows = make('div', 'option-rows');
    rows.append(...options.map(row));
    group.append(make('h4', '', title), rows);
    return group;
  }));
}

let form = null;

function show() {
  if (!form) return;
  for (const { options } of form.groups) {
    for (const { how, value, idle } of options) {
      const part = parts.get(how.field);
      if (!(how.field in waiting || how.field in sent)) part.write(value);
      part.inputs.forEach((input) => { input.disabled = Boolean(idle); });
      part.line.classList.toggle('idle', Boolean(idle));
      part.note.textContent = idle || part.info;
      const told = form.problem && form.problem.field === how.field ? form.problem.text : '';
      if (part.problem.textContent !== told) part.problem.textContent = told;
      part.inputs.forEach((input) => input.toggleAttribute('aria-invalid', Boolean(told)));
    }
  }
}

function receive() {
  if (!props.value) {
    form = null;
    structure = '';
    list.replaceChildren();
    return;
  }
  form = JSON.parse(props.value);
  answered(form.answered);
  const shape = JSON.stringify(form.groups.map(({ title, options }) => [title, options.map(({ how }) => how)]));
  if (shape !== structure) {
    structure = shape;
    build(form.groups);
  }
  show();
}

watch(['value'], receive);
receive();
