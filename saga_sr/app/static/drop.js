// The drop zone: a file is dropped, chosen or recorded, sent to the server, and handed over as
// trigger('upload', {token}); {} asks for the example. props.value says what is too large.
const root = element.querySelector('.drop');
const find = (name) => root.querySelector('.drop-' + name);
const limit = props.value;

const { say } = saga;

saga.fill(root);
find('hint').textContent = say('drop_hint', { duration: limit.duration[saga.language] });

function show(state, error = '') {
  root.dataset.state = state;
  find('error').textContent = error;
}

async function send(file) {
  if (root.dataset.state === 'busy') return;
  const { name } = file;
  if (file.size > limit.bytes)
    return show('idle', say('too_large', { name, megabytes: Math.floor(limit.bytes / 1e6) }));
  find('name').textContent = name;
  show('busy');
  try {
    const query = new URLSearchParams({ name });
    const answer = await fetch(`upload?${query}`, { method: 'POST', body: file });
    const { token, error } = await answer.json();
    show('idle', error);
    if (token) trigger('upload', { token });
  } catch (error) {
    show('idle', say('upload_failed', { name, reason: error.message }));
  }
}

// ------------------------------------------------------------------ drop or choose
const picker = find('file');
find('choose').addEventListener('click', () => picker.click());
find('example').addEventListener('click', () => {
  show('idle');
  trigger('upload', {});
});
picker.addEventListener('change', () => {
  if (picker.files.length) send(picker.files[0]);
  picker.value = '';
});
for (const kind of ['dragenter', 'dragover'])
  root.addEventListener(kind, (event) => {
    event.preventDefault();
    root.classList.add('over');
  });
root.addEventListener('dragleave', (event) => {
  if (!root.contains(event.relatedTarget)) root.classList.remove('over');
});
root.addEventListener('drop', (event) => {
  event.preventDefault();
  root.classList.remove('over');
  if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
});

// ------------------------------------------------------------------ record
// Samples as the microphone gives them: no codec, and none of the processing meant for calls.
const TAP = `registerProcessor('tap', class extends AudioWorkletProcessor {
  process([input]) {
    if (input.length) this.port.postMessage(input[0].slice());
    return true;
  }
});`;
let recording = null;

async function record() {
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  } catch (error) {
    return show('idle', say('no_microphone', { reason: error.message }));
  }
  const context = new AudioContext();
  const url = URL.createObjectURL(new Blob([TAP], { type: 'text/javascript' }));
  await context.audioWorklet.addModule(url);
  URL.revokeObjectURL(url);
  const tap = new AudioWorkletNode(context, 'tap', { numberOfOutputs: 0 });
  recording = { stream, context, blocks: [], frames: 0 };
  tap.port.onmessage = ({ data }) => {
    if (!recording) return;
    recording.blocks.push(data);
    recording.frames += data.length;
    const seconds = recording.frames / context.sampleRate;
    find('clock').textContent = clock(seconds);
    if (seconds > limit.duration_s - 1) finish();
  };
  context.createMediaStreamSource(stream).connect(tap);
  find('clock').textContent = clock(0);
  show('recording');
}

function end() {
  const ended = recording;
  recording = null;
  ended.stream.getTracks().forEach((track) => track.stop());
  ended.context.close();
  show('idle');
  return ended;
}

function finish() {
  const { blocks, frames, context } = end();
  if (!frames) return show('idle', say('nothing_recorded'));
  send(new File([wav(blocks, frames, context.sampleRate)], 'recording.wav'));
}

function wav(blocks, frames, rate) {
  const bytes = new DataView(new ArrayBuffer(58 + 4 * frames));
  const text = (at, word) => [...word].forEach((c, i) => bytes.setUint8(at + i, c.charCodeAt(0)));
  text(0, 'RIFF'), bytes.setUint32(4, 50 + 4 * frames, true), text(8, 'WAVEfmt ');
  bytes.setUint32(16, 18, true), bytes.setUint16(20, 3, true), bytes.setUint16(22, 1, true);
  bytes.setUint32(24, rate, true), bytes.setUint32(28, 4 * rate, true);
  bytes.setUint16(32, 4, true), bytes.setUint16(34, 32, true), bytes.setUint16(36, 0, true);
  text(38, 'fact'), bytes.setUint32(42, 4, true), bytes.setUint32(46, frames, true);
  text(50, 'data'), bytes.setUint32(54, 4 * frames, true);
  let at = 58;
  for (const block of blocks)
    for (const sample of block) bytes.setFloat32(at, sample, true), (at += 4);
  return bytes.buffer;
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, '0')}`;
}

find('record').addEventListener('click', record);
find('done').addEventListener('click', finish);
find('cancel').addEventListener('click', end);
