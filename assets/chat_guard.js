// What a model says is sanitized by gradio: nothing of it runs. Two things it lets through would still reach out of the
// answer: style sheets, which are emptied here before anything is painted, and forms, which are not sent.
const talk = document.getElementById('talk');

function disarm() {
  for (const sheet of talk.querySelectorAll('.chat-answers style')) if (sheet.textContent) sheet.textContent = '';
}

new MutationObserver(disarm).observe(talk, { childList: true, subtree: true });
disarm();
talk.addEventListener('submit', (event) => event.preventDefault(), true);
