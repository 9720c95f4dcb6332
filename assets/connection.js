// Says where the studio answers this page no longer, and offers to reload it; page.js stands before it, in the same scope.
// gradio says nothing where its requests are refused, and where they are after a restart it tries again for ever.
const REPEAT_MS = 3000;
const ask = window.fetch;
let cut = null; // what says so
let asking = false;

function showCut(what, remedy, button) {
  cut ??= document.body.appendChild(document.createElement('div'));
  cut.className = 'cut-off';
  cut.setAttribute('role', 'alert');
  const [strong, rest, reload] = ['strong', 'span', 'button'].map((name) => document.createElement(name));
  strong.textContent = what;
  rest.textContent = remedy;
  reload.type = 'button';
  reload.textContent = button;
  reload.addEventListener('click', () => location.reload());
  cut.replaceChildren(strong, rest, reload);
}

// A request may fail by itself: the studio is gone where it does not even say that it is well.
async function look() {
  if (asking) return;
  asking = true;
  const place = new URL('health', location.href.split(/[?#]/)[0]);
  for (let lost = true; lost; ) {
    lost = await ask(place, { cache: 'no-store' }).then(() => false, () => true);
    if (!lost) break;
    if (!cut) showCut('The studio does not answer.', 'It was stopped, or the network is gone. This page goes on as soon as it answers.', 'Reload');
    await new Promise((done) => setTimeout(done, REPEAT_MS));
  }
  asking = false;
  cut?.remove();
  cut = null;
}

async function refused(response) {
  const told = await response.clone().json().catch(() => ({}));
  if (told.what) showCut(told.what, told.remedy, told.button);
}

window.fetch = async (...asked) => {
  const ours = String(asked[0]?.url ?? asked[0]).includes('/gradio_api/');
  try {
    const response = await ask(...asked);
    if (ours && response.status === 401) refused(response);
    return response;
  } catch (error) {
    if (ours && error.name !== 'AbortError') look();
    throw error;
  }
};
