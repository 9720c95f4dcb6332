// The tokens of the answers: a click, Enter or the arrow keys choose one, and the page shows what else was likely there.
let wanted = null; // the column whose chosen token gets the focus when the new tokens are there

function choose(token, focus) {
  if (!token) return;
  wanted = focus ? token.closest('section').getAttribute('aria-label') : null;
  trigger('click', { index: Number(token.dataset.index) });
}

element.addEventListener('click', (event) => choose(event.target.closest('[data-index]'), false));
element.addEventListener('keydown', (event) => {
  const token = event.target.closest('[data-index]');
  if (!token) return;
  const steps = { Enter: 0, ' ': 0, ArrowRight: 1, ArrowLeft: -1 };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const next = Number(token.dataset.index) + steps[event.key];
  choose(token.parentElement.querySelector(`[data-index="${next}"]`), true);
});

// Brings the chosen token into view within its strip, without moving the page.
function settle() {
  for (const strip of element.querySelectorAll('.strip-of-tokens')) {
    const token = strip.querySelector('[aria-pressed="true"], .parts');
    if (token) strip.scrollTop = token.offsetTop - strip.offsetTop - strip.clientHeight / 2;
  }
  const section = [...element.querySelectorAll('section')].find((one) => one.getAttribute('aria-label') === wanted);
  section?.querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
}
watch('value', settle);
settle();
