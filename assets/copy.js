// Copies the text beside a "Copy" button; where the page is not trusted with the clipboard, by the old way.
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-copy]');
  if (!button) return;
  const text = button.parentElement.querySelector('code').textContent;
  const told = (said) => {
    button.textContent = said;
    setTimeout(() => (button.textContent = 'Copy'), 2000);
  };
  const byHand = () => {
    const field = document.createElement('textarea');
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand('copy');
    field.remove();
    told(done ? 'Copied' : 'Not allowed: select the text');
  };
  if (!navigator.clipboard) byHand();
  else navigator.clipboard.writeText(text).then(() => told('Copied'), byHand);
});
