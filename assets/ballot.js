// The ballot of a blind comparison: its buttons, and the keys 1 to 4 while nothing is being typed.
const ballot = () => element.querySelector('.ballot');

function vote(button) {
  if (!button || button.disabled) return;
  for (const one of element.querySelectorAll('button')) one.disabled = true;
  document.querySelector('#prompt textarea')?.focus({ preventScroll: true });
  trigger('click', { choice: button.dataset.choice });
}

element.addEventListener('click', (event) => vote(event.target.closest('[data-choice]')));

document.addEventListener('keydown', (event) => {
  if (!ballot() || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest('input, textarea, select, [contenteditable="true"], .plot')) return;
  const button = ballot().querySelector(`[aria-keyshortcuts="${CSS.escape(event.key)}"]`);
  if (button) event.preventDefault();
  vote(button);
});

// Who has sent a question is still in its box: the keys work at once if that is empty.
function settle() {
  const at = document.activeElement;
  const waiting = at === document.body || (at?.matches('#prompt textarea') && at.value === '');
  if (ballot() && waiting) ballot().focus({ preventScroll: true });
}
watch('value', settle);
