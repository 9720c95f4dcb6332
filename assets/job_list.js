// Shows the jobs of props.value, and tells the button that was clicked. What is the same as before stays as it is: a list
// that is drawn anew every second takes a button away from the pointer that is on it, and from the keyboard.
const list = element.querySelector('.jobs');

function become(now, next) {
  for (const { name } of [...now.attributes]) if (name !== 'open' && !next.hasAttribute(name)) now.removeAttribute(name);
  for (const { name, value } of next.attributes) if (now.getAttribute(name) !== value) now.setAttribute(name, value);
  let old = now.firstChild;
  for (const child of [...next.childNodes]) {
    const job = child.dataset?.job;
    const same = job && [...now.children].find((one) => one.dataset.job === job && one.nodeName === child.nodeName);
    while (same && old && old !== same) old = removed(old);
    if (!old || (job && !same)) {
      now.insertBefore(child, old);
      continue;
    }
    const following = old.nextSibling;
    if (!old.isEqualNode(child)) {
      if (alike(old, child)) become(old, child);
      else old.replaceWith(child);
    }
    old = following;
  }
  while (old) old = removed(old);
}

function removed(node) {
  const following = node.nextSibling;
  node.remove();
  return following;
}

// A button or a job becomes no other one: whoever was about to click meant that one.
function alike(old, next) {
  if (old.nodeType !== Node.ELEMENT_NODE || old.nodeName !== next.nodeName) return false;
  return old.nodeName !== 'BUTTON' && old.dataset.job === next.dataset.job;
}

function showJobs() {
  const next = list.cloneNode(false);
  next.innerHTML = props.value || '';
  become(list, next);
}

element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-action]');
  if (!button) return;
  button.disabled = true;
  trigger('click', { action: button.dataset.action, job: button.dataset.job });
});
watch('value', showJobs);
showJobs();
