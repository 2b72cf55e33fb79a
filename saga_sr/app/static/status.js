// One line below the button, with a bar while something runs. props.value: {kind, text, fraction,
// visit}; visit is what the server calls this page, once it has been told.
//
// Every few seconds the server is asked whether it still has what the page shows; what was true of a
// server that is gone is not left standing.
const root = element.querySelector('.status');
const ASK_S = 4, PATIENCE_S = 10;
let visit = null, lost = '';

function show() {
  const { kind, text, fraction } = props.value;
  visit = props.value.visit ?? visit;
  root.dataset.kind = lost ? 'error' : kind;
  root.querySelector('.status-text').textContent = lost ? saga.say(lost) : text;
  root.querySelector('.status-bar i').style.width = `${100 * (fraction ?? 0)}%`;
}

async function ask() {
  if (!visit) return '';
  try {
    const signal = AbortSignal.timeout(1000 * PATIENCE_S);
    const answer = await fetch(`visit/${visit}`, { cache: 'no-store', signal });
    if (answer.ok) return (await answer.json()).open ? '' : 'visit_gone';
  } catch {}
  return 'server_gone';
}

async function watchServer() {
  let found = await ask();
  if (found === 'server_gone' && !lost) found = await ask(); // one lost answer says nothing
  if (found !== lost) {
    lost = found;
    show();
  }
  setTimeout(watchServer, 1000 * ASK_S);
}

watch('value', () => {
  if (lost === 'visit_gone') lost = ''; // the server has told something new
  show();
});
show();
watchServer();
