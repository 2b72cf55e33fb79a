// The stage: two spectrograms on one time axis, a player that switches between them, the download.
// props.value is empty or {name, facts, duration_s, nyquist_hz, cutoff_hz, channels, audio,
// scale: {top_db, range_db, colours}, input: {picture, gain}, output?: {picture, gain},
// download?: {url, name, megabytes}}.
//
// `audio` holds input and output on channels of their own. A splitter sends them to two gains, of
// which one is open: one file, hence one position, and a switch is a short cross-fade.
const root = element.querySelector('.stage');
const find = (selector) => root.querySelector(selector);
const all = (selector) => [...root.querySelectorAll(selector)];
const audio = new Audio();
const FADE_S = 0.012;
const { say } = saga;
saga.fill(root);
let value = {}, heard = 'input', context = null, gains = null, source = null, splitter = null;

// ------------------------------------------------------------------ what is shown
function show() {
  const next = props.value ?? {};
  if (!next.audio) return;
  const sameFile = next.input.picture === value.input?.picture;
  const position = sameFile ? audio.currentTime : 0;
  const playing = sameFile && !audio.paused;
  value = next;
  root.dataset.state = value.output ? 'compared' : 'loaded';
  find('.stage-name').textContent = value.name;
  find('.stage-facts').textContent = value.facts;
  for (const track of ['input', 'output']) showPlot(track);
  ticks(find('.seconds'), timeTicks(value.duration_s), 'left');
  all('.play, .switch [data-track=input]').forEach((button) => (button.disabled = false));
  find('.switch [data-track=output]').disabled = !value.output;
  find('.time i').textContent = clock(value.duration_s, Math.round);
  showDownload();
  load(position, playing);
  hear(value.output ? 'output' : 'input');
  drawPosition();
}

function showPlot(track) {
  const plot = find(`.plot[data-track=${track}]`);
  const image = plot.querySelector('img'), cutoff = plot.querySelector('.cutoff');
  image.hidden = !value[track];
  if (value[track]) image.src = value[track].picture;
  cutoff.hidden = !value.cutoff_hz;
  if (value.cutoff_hz) {
    cutoff.style.bottom = `${(100 * value.cutoff_hz) / value.nyquist_hz}%`;
    cutoff.querySelector('span').textContent =
      track === 'input' ? say('ends_at', { khz: `${(value.cutoff_hz / 1000).toFixed(1)} kHz` }) : '';
  }
  plot.querySelector('.playhead').hidden = false;
  const khz = [0, 5, 10, 15, 20].filter((k) => k * 1000 < value.nyquist_hz);
  const marks = khz.map((k) => [(k * 1000) / value.nyquist_hz, k === 20 ? '20 kHz' : `${k}`]);
  ticks(plot.querySelector('.khz'), marks, 'bottom');
  showScale(plot.querySelector('.scale'));
}

function showScale(scale) {
  const { top_db, range_db, colours } = value.scale;
  scale.hidden = false;
  scale.querySelector('i').style.background = `linear-gradient(to top, ${colours.join()})`;
  const first = Math.ceil((top_db - range_db) / 20) * 20;
  const levels = [0, 1, 2, 3, 4, 5].map((i) => first + 20 * i).filter((db) => db <= top_db);
  const marks = levels.map((db) => [1 - (top_db - db) / range_db, `${db}`.replace('-', '\u2212')]);
  marks[marks.length - 1][1] += ' dB';
  ticks(scale.querySelector('.db'), marks, 'bottom');
}

function showDownload() {
  const link = find('.download');
  link.hidden = !value.download;
  if (!value.download) return;
  link.href = value.download.url;
  link.download = value.download.name;
  link.querySelector('small').textContent = `${value.download.megabytes} MB`;
}

function ticks(axis, marks, side) {
  axis.replaceChildren(
    ...marks.map(([share, text]) => {
      const mark = document.createElement('span');
      mark.style[side] = `${100 * share}%`;
      mark.textContent = text;
      return mark;
    }),
  );
}

function timeTicks(duration) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
  const most = Math.max(3, root.clientWidth / 110);
  const step = steps.find((s) => duration / s <= most) ?? 1200;
  const count = Math.floor((0.985 * duration) / step) + 1;
  return Array.from({ length: count }, (_, i) => [(i * step) / duration, tickText(i * step, step)]);
}

function tickText(seconds, step) {
  if (step < 1) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}

function clock(seconds, rounded = Math.floor) {
  if (value.duration_s < 59.95) return `0:${(rounded(10 * seconds) / 10).toFixed(1).padStart(4, '0')}`;
  const whole = rounded(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}

// ------------------------------------------------------------------ what is heard
function load(position, playing) {
  audio.src = value.audio;
  audio.currentTime = position;
  if (context) connect();
  if (playing) audio.play();
}

function connect() {
  splitter?.disconnect();
  const tracks = value.output ? ['input', 'output'] : ['input'];
  splitter = context.createChannelSplitter(tracks.length * value.channels);
  source.disconnect();
  source.connect(splitter);
  gains = {};
  tracks.forEach((track, index) => {
    const merger = context.createChannelMerger(2), gain = context.createGain();
    for (const side of [0, 1]) {
      const channel = Math.min(side, value.channels - 1);
      splitter.connect(merger, index * value.channels + channel, side);
    }
    gain.gain.value = heard === track ? value[track].gain : 0;
    merger.connect(gain).connect(context.destination);
    gains[track] = gain;
  });
}

function hear(track) {
  if (!value[track]) return;
  heard = track;
  root.dataset.heard = track;
  for (const button of all('.switch button'))
    button.setAttribute('aria-checked', String(button.dataset.track === track));
  for (const [name, gain] of Object.entries(gains ?? {}))
    gain.gain.setTargetAtTime(name === track ? value[name].gain : 0, context.currentTime, FADE_S / 3);
}

function toggle() {
  if (!value.audio) return;
  if (!context) {
    context = new AudioContext();
    source = context.createMediaElementSource(audio);
    connect();
  }
  context.resume();
  if (audio.paused) audio.play();
  else audio.pause();
}

// ------------------------------------------------------------------ position
function drawPosition() {
  const share = value.duration_s ? Math.min(audio.currentTime / value.duration_s, 1) : 0;
  for (const head of all('.playhead')) head.style.left = `${100 * share}%`;
  find('.time b').textContent = clock(audio.currentTime);
  if (!audio.paused) requestAnimationFrame(drawPosition);
}

function seek(event) {
  if (!value.audio) return;
  const box = event.currentTarget.getBoundingClientRect();
  const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  audio.currentTime = share * value.duration_s;
  drawPosition();
}

for (const canvas of all('.canvas')) {
  canvas.addEventListener('pointerdown', (event) => {
    canvas.setPointerCapture(event.pointerId);
    seek(event);
  });
  canvas.addEventListener('pointermove', (event) => event.buttons & 1 && seek(event));
}
for (const kind of ['play', 'pause', 'ended', 'seeked'])
  audio.addEventListener(kind, () => {
    root.classList.toggle('playing', !audio.paused);
    find('.play').setAttribute('aria-label', say(audio.paused ? 'play' : 'pause'));
    drawPosition();
  });

// ------------------------------------------------------------------ controls
find('.play').addEventListener('click', toggle);
for (const button of all('.switch button'))
  button.addEventListener('click', () => hear(button.dataset.track));
// A click leaves the focus on what was clicked, and its keys with it. Who uses the mouse gets the
// page's keys back; who came there by the keyboard (a click without a count) keeps the focus.
document.addEventListener('click', (event) => {
  const clicked = event.target.closest('button, a, [type=checkbox], [type=file]');
  if (event.detail && clicked) clicked.blur();
});
const TYPED = 'textarea, select, [contenteditable=true], [role=listbox], '
  + 'input:not([type=range], [type=checkbox], [type=file])';
const PRESSED = 'button, a, [type=checkbox], [type=file]'; // space is theirs while they have the focus
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest(TYPED)) return;
  if (event.key === ' ') {
    if (event.target.closest(PRESSED)) return;
    if (!event.repeat) toggle();
  } else if (event.key === 'x') hear(heard === 'input' ? 'output' : 'input');
  else if (event.key === '1') hear('input');
  else if (event.key === '2') hear('output');
  else return;
  event.preventDefault();
});

element.sagaPlayer = { audio, gains: () => gains, context: () => context }; // for its test
watch('value', show);
show();
