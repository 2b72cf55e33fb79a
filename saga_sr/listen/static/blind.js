// Listening tests: what is played in which order, what was answered, and the CSV of it.

const CSV_FORMAT = "saga_sr.listen/1";
const CSV_COLUMNS = [
  "format", "page", "title", "mode", "session", "rater", "started_at", "trial", "rated_at",
  "clip", "category", "cutoff_hz", "position", "system", "role", "against", "rating",
]; // prettier-ignore
const SECONDS_PER_RATING = 12;
const SECONDS_PER_CHOICE = 15;
const TRUTH_LEAST = 90; // ITU-R BS.1534-3, post-screening
const TRUTH_SHARE = 0.15;

function randomInteger(below) {
  const limit = Math.floor(2 ** 32 / below) * below;
  const word = new Uint32Array(1);
  do crypto.getRandomValues(word);
  while (word[0] >= limit);
  return word[0] % below;
}

function shuffled(items) {
  const all = [...items];
  for (let i = all.length - 1; i > 0; i--) {
    const j = randomInteger(i + 1);
    [all[i], all[j]] = [all[j], all[i]];
  }
  return all;
}

function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// `count` clips, the categories in turn, which of each at random.
function drawClips(clips, count) {
  const groups = new Map();
  for (const clip of shuffled(clips)) {
    const key = `${clip.category} ${clip.cutoff_hz}`;
    groups.set(key, [...(groups.get(key) || []), clip]);
  }
  const chosen = [];
  const queues = shuffled([...groups.values()]);
  while (chosen.length < count && queues.some((queue) => queue.length)) {
    for (const queue of queues) if (queue.length && chosen.length < count) chosen.push(queue.pop());
  }
  return shuffled(chosen);
}

function pairsOf(names) {
  return names.flatMap((one, i) => names.slice(i + 1).map((other) => [one, other]));
}

// What a listener is to hear. systems: the names that take part, truth and anchor included.
function newSession(page, mode, rater, clips, systems) {
  const trials = [];
  for (const clip of clips) {
    const present = clip.versions.map((version) => version.name).filter((n) => systems.includes(n));
    if (mode === "mushra") trials.push({ clip: clip.id, order: shuffled(present) });
    else for (const pair of pairsOf(present)) trials.push({ clip: clip.id, order: shuffled(pair) });
  }
  return {
    id: randomId(),
    page: page.id,
    mode,
    rater,
    started_at: new Date().toISOString(),
    at: 0,
    trials: mode === "mushra" ? trials : shuffled(trials),
  };
}

function minutesOf(mode, clips, count) {
  const choices = (count * (count - 1)) / 2;
  const seconds =
    mode === "mushra"
      ? clips * (count + 1) * SECONDS_PER_RATING
      : clips * choices * SECONDS_PER_CHOICE;
  return Math.max(1, Math.round(seconds / 60));
}

function isDone(trial) {
  return Boolean(trial.rated_at);
}

function csvField(value) {
  const text = String(value ?? "");
  return /[",;\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// Finished trials of sessions, a line per rated version; UTF-8 with a mark for spreadsheets.
function toCsv(page, sessions) {
  const roles = new Map(page.systems.map(({ name, role }) => [name, role]));
  const clips = new Map(page.clips.map((clip) => [clip.id, clip]));
  const lines = [CSV_COLUMNS];
  for (const session of sessions) {
    session.trials.forEach((trial, number) => {
      if (!isDone(trial)) return;
      const clip = clips.get(trial.clip);
      trial.order.forEach((system, position) => {
        const against = session.mode === "preference" ? trial.order[1 - position] : "";
        lines.push([
          CSV_FORMAT, page.id, page.title, session.mode, session.id, session.rater,
          session.started_at, number + 1, trial.rated_at, clip.name, clip.category, clip.cutoff_hz,
          position + 1, system, roles.get(system), against, trial.ratings[position],
        ]); // prettier-ignore
      });
    });
  }
  return "\ufeff" + lines.map((line) => line.map(csvField).join(",")).join("\r\n") + "\r\n";
}

// Mean and number of ratings of each system, and how often the hidden truth was rated too low.
function summarise(page, session) {
  const roles = new Map(page.systems.map(({ name, role }) => [name, role]));
  const by = new Map();
  const truths = [];
  for (const trial of session.trials.filter(isDone)) {
    trial.order.forEach((system, position) => {
      by.set(system, [...(by.get(system) || []), trial.ratings[position]]);
      if (roles.get(system) === "truth") truths.push(trial.ratings[position]);
    });
  }
  const means = [...by].map(([name, values]) => ({
    name,
    role: roles.get(name),
    mean: values.reduce((sum, value) => sum + value, 0) / values.length,
    count: values.length,
  }));
  const low = truths.filter((value) => value < TRUTH_LEAST).length;
  const excluded = session.mode === "mushra" && low > TRUTH_SHARE * truths.length;
  return { means: means.sort((a, b) => b.mean - a.mean), low, of: truths.length, excluded };
}

// Sessions of a page, kept by the browser where it lets us.
class Shelf {
  constructor(page) {
    this.key = `saga-listen ${page.id}`;
    this.isKept = true;
    this.sessions = [];
    try {
      const stored = JSON.parse(localStorage.getItem(this.key) || "[]");
      const known = new Set(page.clips.map((clip) => clip.id));
      this.sessions = stored.filter((s) => s.page === page.id && s.trials.every((t) => known.has(t.clip)));
    } catch {
      this.isKept = false;
    }
  }

  keep() {
    try {
      localStorage.setItem(this.key, JSON.stringify(this.sessions));
    } catch {
      this.isKept = false;
    }
  }

  get unfinished() {
    return this.sessions.filter((session) => session.at < session.trials.length).at(-1);
  }

  get finishedTrials() {
    return this.sessions.flatMap((session) => session.trials).filter(isDone).length;
  }
}
