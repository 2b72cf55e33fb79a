// All versions of a clip run together on the audio clock; switching only moves gains.
//
// Positions are in seconds of the clip. A loop is a buffer of its own whose end is crossfaded into
// what comes before its start, so that it repeats on the sample and without a click.

const SWITCH_S = 0.012; // crossfade between versions: equal low bands add up to themselves
const EDGE_S = 0.008; // fade at start, stop and jump
const SEAM_S = 0.01; // crossfade inside a loop
const LEAD_S = 0.01; // a switch is scheduled this far ahead of the clock
const START_S = 0.03; // a start, which takes longer to prepare

class Player {
  constructor() {
    this.buffers = []; // AudioBuffer of each version
    this.gains = []; // linear, of each version
    this.selected = 0;
    this.isLooping = true;
    this.region = null; // {start, end}
    this.onstop = () => {};
    this.heard = new Set(); // versions that were heard since load()
    this._rest = 0; // position while nothing plays
    this._deck = null;
    this._loops = new Map();
    this._stopTimer = 0;
  }

  static decode(bytes, rate) {
    const Offline = window.OfflineAudioContext || window.webkitOfflineAudioContext;
    return new Offline(1, 1, rate).decodeAudioData(bytes);
  }

  // gains: linear; selected: index of the version that is heard.
  load(buffers, gains, selected) {
    this.pause();
    [this.buffers, this.gains, this.selected] = [buffers, gains, selected];
    [this.region, this._rest] = [null, 0];
    this.heard.clear();
    this._loops.clear();
  }

  get isPlaying() {
    return this._deck !== null;
  }

  get duration() {
    return this.buffers.length ? this.buffers[0].duration : 0;
  }

  get _span() {
    return this.region || { start: 0, end: this.duration };
  }

  get position() {
    const deck = this._deck;
    if (!deck) return this._rest;
    const passed = Math.max(0, this.context.currentTime - deck.startTime);
    const { start, end } = deck.span;
    if (!deck.isLoop) return Math.min(deck.offset + passed, end);
    return start + ((deck.offset - start + passed) % (end - start));
  }

  play(position = this._rest) {
    if (!this.buffers.length) return;
    const rate = this.buffers[0].sampleRate;
    if (!this.context || this.context.sampleRate !== rate) this._open(rate);
    this.context.resume();
    const span = this._span;
    const inside = position >= span.start && position < span.end - 0.005;
    this._replace(this._start(inside ? position : span.start, span));
  }

  pause() {
    this._rest = this.position;
    this._replace(null);
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  seek(position) {
    const target = Math.min(Math.max(position, 0), Math.max(0, this.duration - 0.005));
    if (this.region && (target < this.region.start || target >= this.region.end)) this.region = null;
    if (this.isPlaying) this.play(target);
    else this._rest = target;
  }

  select(index) {
    this.selected = index;
    if (this._deck) this._mix(this._deck);
  }

  setGains(gains) {
    this.gains = gains;
    if (this._deck) this._mix(this._deck);
  }

  setLoop(isLooping) {
    this.isLooping = isLooping;
    if (this.isPlaying) this.play(this.position);
  }

  setRegion(region) {
    const rate = this.buffers.length ? this.buffers[0].sampleRate : 1;
    const whole = (seconds) => Math.round(seconds * rate) / rate;
    this.region = region && { start: whole(region.start), end: whole(region.end) };
    const start = region ? region.start : this.position;
    if (this.isPlaying) this.play(start);
    else this._rest = start;
  }

  // ---- inside ----

  _open(rate) {
    const Context = window.AudioContext || window.webkitAudioContext;
    if (this.context) this.context.close();
    try {
      this.context = new Context({ sampleRate: rate, latencyHint: "interactive" });
    } catch {
      this.context = new Context(); // a browser that cannot run at this rate converts
    }
    this.output = this.context.createGain();
    this.output.connect(this.context.destination);
  }

  _start(offset, span) {
    // On whole samples: between them a browser would interpolate, and start on a gain's old value.
    const whole = (seconds) => Math.ceil(seconds * this.context.sampleRate) / this.context.sampleRate;
    const played = this.buffers.map((buffer, i) => (this.isLooping ? this._loop(i, span) : buffer));
    const time = whole(this.context.currentTime + START_S); // the work is done: now look at the clock
    const deck = {
      span,
      offset: whole(offset),
      isLoop: this.isLooping,
      startTime: time,
      level: this.context.createGain(),
      voices: [],
      settled: 0,
      selected: this.selected,
    };
    deck.level.gain.value = 0;
    deck.level.gain.setValueAtTime(0, time);
    deck.level.gain.linearRampToValueAtTime(1, time + EDGE_S);
    deck.level.connect(this.output);
    played.forEach((buffer, index) => {
      const source = this.context.createBufferSource();
      const gain = this.context.createGain();
      const value = index === this.selected ? this.gains[index] : 0;
      gain.gain.value = value;
      source.connect(gain).connect(deck.level);
      source.buffer = buffer;
      if (deck.isLoop) {
        source.loop = true;
        source.start(time, deck.offset - span.start);
      } else {
        source.start(time, deck.offset, span.end - deck.offset);
      }
      deck.voices.push({ source, gain: gain.gain, value });
    });
    this.heard.add(this.selected);
    if (!deck.isLoop) {
      deck.voices[0].source.onended = () => {
        if (this._deck !== deck) return;
        this._deck = null;
        this._rest = span.start;
        this.onstop();
      };
    }
    return deck;
  }

  // The old deck fades out as the new one fades in.
  _replace(deck) {
    const old = this._deck;
    this._deck = deck;
    if (!old) return;
    const next = deck ? deck.startTime : this.context.currentTime + START_S;
    const begin = Math.max(next, old.startTime + EDGE_S);
    old.level.gain.setValueAtTime(1, begin);
    old.level.gain.linearRampToValueAtTime(0, begin + EDGE_S);
    for (const { source } of old.voices) source.stop(begin + EDGE_S + 0.01);
  }

  // Crossfade to the selected version. A ramp that has begun is never cut off: the next follows it.
  _mix(deck) {
    const begin = Math.max(this.context.currentTime + LEAD_S, deck.settled, deck.startTime);
    deck.settled = begin + SWITCH_S;
    deck.voices.forEach((voice, index) => {
      const target = index === this.selected ? this.gains[index] : 0;
      if (target === voice.value) return;
      voice.gain.setValueAtTime(voice.value, begin);
      voice.gain.linearRampToValueAtTime(target, begin + SWITCH_S);
      voice.value = target;
    });
    this.heard.add(this.selected);
  }

  _loop(index, { start, end }) {
    const key = `${index} ${start} ${end}`;
    if (!this._loops.has(key)) {
      if (this._loops.size > 64) this._loops.clear();
      this._loops.set(key, this._makeLoop(this.buffers[index], start, end));
    }
    return this._loops.get(key);
  }

  _makeLoop(buffer, start, end) {
    const rate = buffer.sampleRate;
    const first = Math.round(start * rate);
    const last = Math.min(Math.round(end * rate), buffer.length);
    const length = Math.max(1, last - first);
    const seam = Math.min(Math.round(SEAM_S * rate), length >> 1);
    const loop = this.context.createBuffer(buffer.numberOfChannels, length, rate);
    for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
      const all = buffer.getChannelData(channel);
      const part = all.slice(first, last);
      for (let i = 0; i < seam; i++) {
        const share = (i + 1) / seam;
        const before = first - seam + i; // leads into the start; nothing before the clip's start
        const lead = before >= 0 ? all[before] : 0;
        part[length - seam + i] = part[length - seam + i] * (1 - share) + lead * share;
      }
      const rise = Math.max(0, Math.min(seam - first, seam)); // a clip that starts in full sound
      for (let i = 0; i < rise; i++) part[i] *= i / rise;
      loop.copyToChannel(part, channel);
    }
    return loop;
  }
}
