// The sticky header: steps that scroll and show where one is, and the switch between light and dark.

// What is done before the page shows what its person chose last would be done to another choice, and written over it.
const page = element.closest('.gradio-container');
page.inert = true; // until _OPENED in components/journey.py
setTimeout(() => { page.inert = false; }, 60_000); // where no answer comes at all

// What the door asks a new visitor by (components/door.py) would turn them away when they reload after their visit.
const address = new URL(location.href);
if (address.searchParams.has('visit')) {
  address.searchParams.delete('visit');
  history.replaceState(history.state, '', address);
}

const stored = localStorage.getItem('espalier-theme');
const asked = new URLSearchParams(location.search).get('__theme');
if (stored && !asked) document.body.classList.toggle('dark', stored === 'dark');

const toggle = element.querySelector('.theme-toggle');
function label() {
  const dark = document.body.classList.contains('dark');
  toggle.setAttribute('aria-pressed', String(dark));
}
toggle.addEventListener('click', () => {
  const dark = document.body.classList.toggle('dark');
  localStorage.setItem('espalier-theme', dark ? 'dark' : 'light');
  label();
});
label();

const links = [...element.querySelectorAll('a[data-station]')];
const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
for (const link of links) {
  link.addEventListener('click', (event) => {
    // gradio sets <base href>, so following the link itself would load the page again without its query
    event.preventDefault();
    const station = document.getElementById(link.dataset.station);
    station.scrollIntoView({ behavior: still ? 'auto' : 'smooth', block: 'start' });
    const heading = station.querySelector('h2');
    heading.setAttribute('tabindex', '-1');
    heading.focus({ preventScroll: true });
  });
}

function mark() {
  const line = innerHeight * 0.4;
  let here = links[0];
  for (const link of links) {
    const station = document.getElementById(link.dataset.station);
    if (station && station.getBoundingClientRect().top < line) here = link;
  }
  if (innerHeight + scrollY >= document.documentElement.scrollHeight - 4) here = links[links.length - 1];
  for (const link of links) {
    if (link === here) link.setAttribute('aria-current', 'step');
    else link.removeAttribute('aria-current');
  }
}
addEventListener('scroll', () => requestAnimationFrame(mark), { passive: true });
addEventListener('resize', mark);
mark();
