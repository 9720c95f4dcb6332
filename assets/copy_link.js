() => {
  // Copies the address of the link to the recipe; where the page is not trusted with the clipboard, by the old way.
  const link = document.querySelector('#saves a.permalink');
  const button = document.querySelector('#copy-link');
  if (!link || !button) return;
  const told = (text) => {
    const before = 'Copy the link';
    button.textContent = text;
    setTimeout(() => (button.textContent = before), 2000);
  };
  const byHand = () => {
    const field = document.createElement('textarea');
    field.value = link.href;
    document.body.append(field);
    field.select();
    const done = document.execCommand('copy');
    field.remove();
    told(done ? 'Copied' : 'Not allowed to copy: use the link itself');
  };
  if (!navigator.clipboard) byHand();
  else navigator.clipboard.writeText(link.href).then(() => told('Copied'), byHand);
}
