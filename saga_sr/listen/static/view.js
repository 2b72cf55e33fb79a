// The page itself: what is shown, and what a click or a key does.

const page = JSON.parse(document.getElementById("page").textContent);
const app = document.getElementById("app");
const player = new Player();
const shelf = new Shelf(page);
const roleOf = new Map(page.systems.map(({ name, role }) => [name, role]));
const clipOf = new Map(page.clips.map((clip) => [clip.id, clip]));
const ROLE_ORDER = ["input", "system", "baseline", "ceiling", "truth"];
const SYSTEM_COLOURS = ["#2f6fed", "#e07b00", "#8e4ec6", "#d6336c", "#0a9396", "#7a6a00", "#5c6bc0"];
const CACHED_CLIPS = 4;
const DRAG_PX = 6;
const SEEK_S = 1;
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

const view = {
  mode: "compare", // setup, test, result
  category: null,
  cutoff: null,
  clip: null,
  loaded: null, // {clip, images, envelope} of what the player holds
  shown: [], // versions of the loaded clip in the order of their keys
  selected: 0, // in shown
  isMatched: true,
  session: null,
  setup: { mode: "mushra", rater: "", count: 8, systems: null },
  error: "",
};

// ---- small things ----

function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style" || name.includes("-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const one = (selector) => app.querySelector(selector);
const all = (selector) => [...app.querySelectorAll(selector)];
const hertz = (hz) => (hz >= 1000 ? `${+(hz / 1000).toFixed(1)} kHz` : `${Math.round(hz)} Hz`);
const decibel = (db) => `${db > 0 ? "+" : db < 0 ? "−" : ""}${Math.abs(db).toFixed(1)} dB`;
const amplitude = (db) => 10 ** (db / 20);
const distinct = (values) => [...new Set(values)];

function colourOf(name) {
  const role = roleOf.get(name);
  if (role === "truth") return "var(--truth)";
  if (role !== "system" && role !== undefined) return "var(--quiet)";
  const systems = page.systems.filter((one) => one.role === "system").map((one) => one.name);
  const runs = systems.length ? systems : distinct(page.charts.flatMap((c) => c.lines.map((l) => l.run)));
  return SYSTEM_COLOURS[Math.max(0, runs.indexOf(name)) % SYSTEM_COLOURS.length];
}

function filtered() {
  return page.clips.filter(
    (clip) =>
      (view.category === null || clip.category === view.category) &&
      (view.cutoff === null || clip.cutoff_hz === view.cutoff),
  );
}

// ---- clips from disk ----

const waiting = new Map();
const cache = new Map(); // id -> promise of {buffers, pictures}

window.sagaListen = {
  arrived: (id, payload) => waiting.get(id)(payload),
  player,
  view,
  words: WORDS,
};

function fetchScript(clip) {
  return new Promise((resolve, reject) => {
    waiting.set(clip.id, resolve);
    const script = el("script", { src: clip.script });
    script.onerror = () => reject(new Error(say("missing", { file: clip.script })));
    script.onload = () => script.remove();
    document.head.append(script);
  });
}

function toBytes(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes.buffer;
}

async function open(clip) {
  const payload = await fetchScript(clip);
  const buffers = await Promise.all(
    payload.map(({ audio }, index) =>
      Player.decode(toBytes(audio), clip.sample_rate).catch((error) => {
        const file = clip.versions[index].file;
        throw new Error(say("broken", { file, reason: error.message || error.name }));
      }),
    ),
  );
  return { buffers, pictures: payload.map(({ picture }) => `data:image/png;base64,${picture}`) };
}

function load(clip) {
  if (!cache.has(clip.id)) {
    const opened = open(clip);
    opened.catch(() => cache.delete(clip.id));
    cache.set(clip.id, opened);
  }
  const opened = cache.get(clip.id);
  cache.delete(clip.id); // the newest is the last to go
  cache.set(clip.id, opened);
  for (const id of [...cache.keys()].slice(0, -CACHED_CLIPS)) cache.delete(id);
  return opened;
}

function imageOf(source) {
  const image = new Image();
  image.src = source;
  return image.decode().then(() => image);
}

// Puts versions (by name, in this order) of a clip into the player.
async function prepare(clip, names, keep) {
  view.error = "";
  const wanted = `${view.mode} ${clip.id} ${names.join()}`;
  view.wanted = wanted;
  view.loaded = null;
  player.load([], [], 0);
  try {
    const { buffers, pictures } = await load(clip);
    const indices = names.map((name) => clip.versions.findIndex((version) => version.name === name));
    const images = await Promise.all(indices.map((index) => imageOf(pictures[index])));
    if (view.wanted !== wanted) return; // somebody has gone on
    const input = clip.versions.findIndex((version) => roleOf.get(version.name) === "input");
    view.loaded = { clip, images, envelope: envelopeOf(buffers[input]) };
    view.shown = indices.map((index) => clip.versions[index]);
    view.selected = Math.max(0, view.shown.findIndex((version) => version.name === keep));
    player.load(indices.map((index) => buffers[index]), gainsOf(), view.selected);
    const next = filtered()[filtered().indexOf(clip) + 1];
    if (next && view.mode === "compare") load(next).catch(() => {});
  } catch (error) {
    if (view.wanted !== wanted) return;
    view.error = error.message;
  }
}

function gainsOf() {
  return view.shown.map((version) => (view.isMatched || view.mode === "test" ? amplitude(version.gain_db) : 1));
}

function envelopeOf(buffer) {
  const columns = 600;
  const samples = buffer.getChannelData(0);
  return Array.from({ length: columns }, (_, column) => {
    let peak = 0;
    const end = Math.floor(((column + 1) * samples.length) / columns);
    for (let i = Math.floor((column * samples.length) / columns); i < end; i++) {
      peak = Math.max(peak, Math.abs(samples[i]));
    }
    return peak;
  });
}

// ---- header ----

function header() {
  const modes = [
    ["compare", say("compare"), () => go("compare")],
    ["blind", say("blind"), () => go("setup")],
  ];
  const isBlind = view.mode !== "compare";
  return el(
    "header",
    {},
    el("div", { className: "brand" }, el("h1", {}, say("listening")), el("p", {}, page.title)),
    el(
      "nav",
      {},
      el("div", { className: "segmented modes", role: "group" }, ...modes.map(([name, label, action]) =>
        el("button", { "data-mode": name, "aria-pressed": String((name === "blind") === isBlind), onclick: action }, label))),
      el("div", { className: "segmented language", role: "group", "aria-label": say("language") },
        ...[["en", "EN"], ["zh", "中文"]].map(([code, label]) =>
          el("button", { lang: code, "aria-pressed": String(Language.current === code), onclick: () => speak(code) }, label))),
    ),
  ); // prettier-ignore
}

function speak(language) {
  Language.set(language);
  render();
  paintAll();
}

function go(mode) {
  if (mode === view.mode) return;
  view.mode = mode;
  view.error = "";
  player.pause();
  if (mode === "compare") choose(view.clip);
  render();
}

// ---- compare ----

function choose(clip) {
  if (!clip) return;
  const keep = view.shown[view.selected] && view.mode === "compare" ? view.shown[view.selected].name : null;
  view.clip = clip;
  const names = clip.versions
    .filter((version) => roleOf.get(version.name) !== "anchor")
    .sort((a, b) => ROLE_ORDER.indexOf(roleOf.get(a.name)) - ROLE_ORDER.indexOf(roleOf.get(b.name)))
    .map((version) => version.name);
  const first = names.find((name) => roleOf.get(name) === "system") || names[0];
  const before = clip;
  prepare(clip, names, keep || first).then(() => {
    if (view.mode === "compare" && view.clip === before) render();
  });
  render();
}

function chips(label, values, current, show, set) {
  if (values.length < 2) return null;
  return el(
    "div",
    { className: "chips", role: "group", "aria-label": label },
    ...[null, ...values].map((value) =>
      el(
        "button",
        {
          "aria-pressed": String(value === current),
          onclick: () => {
            set(value);
            if (!filtered().includes(view.clip)) choose(filtered()[0]);
            render();
          },
        },
        value === null ? say("all") : show(value),
      ),
    ),
  );
}

function filters() {
  const categories = distinct(page.clips.map((clip) => clip.category)).sort();
  const cutoffs = distinct(page.clips.map((clip) => clip.cutoff_hz)).sort((a, b) => a - b);
  return el(
    "div",
    { className: "filters" },
    chips(say("category"), categories, view.category, String, (value) => (view.category = value)),
    chips(say("cutoff"), cutoffs, view.cutoff, hertz, (value) => (view.cutoff = value)),
  );
}

function clipList() {
  const clips = filtered();
  if (!clips.length) return el("p", { className: "empty" }, say("no_clip"));
  const shortName = (clip) => clip.name.replace(`${clip.category}/`, "");
  return el(
    "div",
    { className: "cliplist" },
    el(
      "div",
      { className: "pager" },
      el("button", { className: "icon", "aria-label": say("previous"), onclick: () => stepClip(-1) }, "‹"),
      el(
        "select",
        {
          "aria-label": say("clips"),
          onchange: (event) => choose(clipOf.get(event.target.value)),
        },
        ...clips.map((clip) =>
          el("option", { value: clip.id, selected: clip === view.clip }, `${shortName(clip)} · ${clip.category} · ${hertz(clip.cutoff_hz)}`),
        ),
      ),
      el("button", { className: "icon", "aria-label": say("next_clip"), onclick: () => stepClip(1) }, "›"),
    ),
    el(
      "ol",
      {},
      ...clips.map((clip) =>
        el(
          "li",
          {},
          el(
            "button",
            { "data-clip": clip.id, "aria-current": String(clip === view.clip), onclick: () => choose(clip) },
            el("span", { className: "clipname", title: clip.name }, shortName(clip)),
            el("span", { className: "clipkind" }, `${clip.category} · ${hertz(clip.cutoff_hz)}`),
          ),
        ),
      ),
    ),
  ); // prettier-ignore
}

function stepClip(by) {
  const clips = filtered();
  const next = clips[clips.indexOf(view.clip) + by];
  if (next) choose(next);
}

function clipHead(clip) {
  const seconds = clip.num_samples / clip.sample_rate;
  const facts = [
    clip.category,
    say("cutoff_at", { hz: hertz(clip.cutoff_hz) }),
    say("rolloffs", { low: hertz(clip.rolloff_low_hz), high: hertz(clip.rolloff_high_hz) }),
    say("seconds", { s: seconds.toFixed(1) }),
    `${+(clip.sample_rate / 1000).toFixed(2)} kHz`,
  ];
  return el(
    "div",
    { className: "cliphead" },
    el("h2", {}, clip.name.split("/").at(-1)),
    el("p", { className: "facts" }, ...facts.map((fact, i) => el("span", { title: i === 2 ? say("rolloffs_help") : "" }, fact))),
    clip.text ? el("p", { className: "text" }, `“${clip.text}”`) : null,
    clip.lowered_db > 0 ? el("p", { className: "hint" }, say("lowered", { db: decibel(clip.lowered_db).replace("+", "") })) : null,
  ); // prettier-ignore
}

function stage() {
  const canvas = el("canvas", { tabIndex: -1 });
  const holder = el(
    "div",
    { className: "stage" },
    el("div", { className: "plot" }, canvas, el("span", { className: "nameplate" }), el("span", { className: "pointer" })),
  );
  if (view.mode === "compare") {
    const shades = [...page.colours].join(", ");
    holder.append(
      el(
        "div",
        { className: "legend", title: say("level_scale") },
        el("span", {}, "0 dB"),
        el("i", { style: `background: linear-gradient(to top, ${shades})` }),
        el("span", {}, `−${page.range_db}`),
      ),
    );
  }
  attachPointer(canvas);
  return holder;
}

function transport() {
  const toggle = (label, className, pressed, action, title = "") =>
    el("button", { className, "aria-pressed": String(pressed), onclick: action, title }, label);
  const isTest = view.mode === "test";
  return el(
    "div",
    { className: "transport" },
    el("button", { className: "play", onclick: togglePlay }),
    el("span", { className: "clock" }),
    toggle("", "loop", player.isLooping, toggleLoop),
    el("button", { className: "clear", onclick: clearRegion }, say("clear")),
    isTest || !view.clip
      ? null
      : toggle(say("match"), "match", view.isMatched, () => {
          view.isMatched = !view.isMatched;
          player.setGains(gainsOf());
          render();
        }, say("match_help", { hz: hertz(view.clip.kept_hz) })),
    el(
      "p",
      { className: "keys" },
      ...[["1–9", "keys_switch"], ["␣", "keys_play"], ["← →", "keys_seek"], ["↑ ↓", "keys_version"], ["L", "keys_loop"]].flatMap(
        ([key, word]) => (isTest && key === "← →" ? [] : [el("kbd", {}, key), ` ${say(word)} `]),
      ),
      ...(isTest ? [] : [el("kbd", {}, "N"), " ", el("kbd", {}, "P"), ` ${say("keys_clip")}`]),
    ),
  ); // prettier-ignore
}

function versionTable() {
  const names = Object.keys(page.metrics);
  const best = bestOf(view.shown.map((v) => [v.name, v.metrics]));
  const head = el(
    "tr",
    {},
    el("th", { className: "key" }),
    el("th", { className: "name" }, say("version")),
    el("th", { className: "thumb" }),
    el("th", { className: "num level", title: view.clip ? say("match_help", { hz: hertz(view.clip.kept_hz) }) : "" }, say("level")),
    ...names.map((name) => metricHead(page.metrics[name])),
  );
  const rows = view.shown.map((version, index) =>
    el(
      "tr",
      {
        "data-version": version.name,
        style: `--colour: ${colourOf(version.name)}`,
        onclick: () => select(index),
      },
      el("td", { className: "key" }, el("button", { "aria-label": version.name }, index < 9 ? String(index + 1) : "·")),
      el("td", { className: "name" }, el("b", {}, version.name), roleTag(version.name)),
      el("td", { className: "thumb" }, thumb(index)),
      el("td", { className: "num level", "data-label": say("level") }, levelText(version)),
      ...names.map((name) => metricCell(name, version.metrics[name], best.get(name).includes(version.name))),
    ),
  );
  return el("table", { className: "versions" }, el("thead", {}, head), el("tbody", {}, ...rows));
}

function metricHead(metric) {
  const arrow = { low: "↓", high: "↑", zero: "→0" }[metric.good];
  return el("th", { className: "num", title: metric.meaning }, `${metric.label} `, el("small", {}, arrow));
}

function metricCell(name, value, isBest) {
  const digits = Math.abs(value) >= 100 ? 1 : 2;
  const text = value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
  return el("td", { className: isBest ? "num best" : "num", "data-label": page.metrics[name].label }, text);
}

// metric -> names of the best of the systems and baselines, to two decimals; none where all are equal.
function bestOf(rows) {
  const best = new Map();
  for (const [name, { good }] of Object.entries(page.metrics)) {
    const judged = rows
      .filter(([row, metrics]) => ["system", "baseline"].includes(roleOf.get(row)) && typeof metrics[name] === "number")
      .map(([row, metrics]) => [row, good === "high" ? -metrics[name] : good === "zero" ? Math.abs(metrics[name]) : metrics[name]])
      .map(([row, value]) => [row, Number(value.toFixed(2))]);
    const least = Math.min(...judged.map(([, value]) => value));
    const winners = judged.filter(([, value]) => value === least).map(([row]) => row);
    best.set(name, winners.length < judged.length ? winners : []);
  }
  return best;
}

function roleTag(name) {
  const role = roleOf.get(name);
  return role === "system" || say(role) === name ? null : el("span", { className: "tag" }, say(role));
}

function levelText(version) {
  return view.isMatched ? decibel(version.gain_db) : decibel(0);
}

function thumb(index) {
  const image = view.loaded.images[index].cloneNode();
  image.alt = "";
  image.draggable = false;
  const seekHere = (event) => {
    const box = image.getBoundingClientRect();
    select(index);
    player.play(((event.clientX - box.left) / box.width) * player.duration);
    event.stopPropagation();
    paintAll();
  };
  const cutoff = 100 * (1 - view.clip.cutoff_hz / (view.clip.sample_rate / 2));
  return el("div", { className: "strip", onclick: seekHere }, image, el("i", { className: "cut", style: `top: ${cutoff}%` }), el("i", { className: "head" }));
}

function averages() {
  const clips = filtered();
  const names = Object.keys(page.metrics);
  if (clips.length < 2 || !names.length) return null;
  const rows = page.systems
    .filter(({ role }) => role !== "anchor" && role !== "truth")
    .sort((a, b) => ROLE_ORDER.indexOf(a.role) - ROLE_ORDER.indexOf(b.role))
    .map(({ name }) => [name, Object.fromEntries(names.map((metric) => [metric, meanOf(clips, name, metric)]))]);
  const best = bestOf(rows);
  return el(
    "section",
    { className: "averages" },
    el("h3", {}, say("averages"), el("small", {}, say("averages_of", { n: clips.length }))),
    el(
      "div",
      { className: "scroll" },
      el("table", {},
        el("thead", {}, el("tr", {}, el("th", { className: "name" }, say("version")), ...names.map((name) => metricHead(page.metrics[name])))),
        el("tbody", {}, ...rows.map(([name, metrics]) =>
          el("tr", { style: `--colour: ${colourOf(name)}` }, el("td", { className: "name" }, el("i", { className: "dot" }), name),
            ...names.map((metric) => metricCell(metric, metrics[metric], best.get(metric).includes(name))))))),
    ),
  ); // prettier-ignore
}

function meanOf(clips, name, metric) {
  const zero = page.metrics[metric].good === "zero";
  const values = clips
    .flatMap((clip) => clip.versions.filter((version) => version.name === name))
    .map((version) => version.metrics[metric])
    .filter((value) => typeof value === "number")
    .map((value) => (zero ? Math.abs(value) : value));
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

function curves() {
  if (!page.charts.length) return null;
  const runs = distinct(page.charts.flatMap((one) => one.lines.map((line) => line.run)));
  const hasCommon = page.charts.some((one) => one.lines.some((line) => line.common));
  return el(
    "section",
    { className: "curves" },
    el("h3", {}, say("curves"), hasCommon ? el("small", {}, say("curves_help")) : null),
    el("p", { className: "runs" }, ...runs.map((run) => el("span", { style: `--colour: ${colourOf(run)}` }, el("i", { className: "dot" }), run))),
    el("div", { className: "charts" }, ...page.charts.map((one) => chart(one, colourOf))),
  ); // prettier-ignore
}

function compareView() {
  const clip = view.clip;
  return el(
    "div",
    { className: "columns" },
    el("aside", {}, filters(), clipList()),
    el(
      "main",
      {},
      ...page.notes.map((note) => el("p", { className: "note" }, note)),
      ...(clip ? [clipHead(clip), stage(), transport(), message()] : []),
      view.loaded ? versionTable() : null,
      averages(),
      curves(),
    ),
  );
}

function message() {
  return el("p", { className: view.error ? "message error" : "message" }, view.error || (view.loaded ? "" : say("loading")));
}

// ---- blind ----

function setupView() {
  const setup = view.setup;
  const present = new Set(filtered().flatMap((clip) => clip.versions.map((version) => version.name)));
  const offered = page.systems.filter(({ name }) => present.has(name));
  setup.systems ??= new Set(
    page.systems.filter(({ role }) => ["truth", "anchor", "system"].includes(role)).map(({ name }) => name),
  );
  if (setup.systems.size < 3) for (const { name } of page.systems) setup.systems.add(name);
  const total = filtered().length;
  const count = Math.min(setup.count, total);
  const names = testedNames();
  const trials = setup.mode === "mushra" ? count : (count * names.length * (names.length - 1)) / 2;
  const minutes = minutesOf(setup.mode, count, names.length);
  const choice = (mode, label, help) =>
    el("label", { className: "choice" },
      el("input", { type: "radio", name: "mode", value: mode, checked: setup.mode === mode, onchange: () => { setup.mode = mode; render(); } }),
      el("span", {}, el("b", {}, label), el("small", {}, help))); // prettier-ignore
  const unfinished = shelf.unfinished;
  return el(
    "main",
    { className: "sheet" },
    el("h2", {}, say("setup_title")),
    el("p", { className: "lead" }, say("setup_text")),
    shelf.isKept ? null : el("p", { className: "note" }, say("not_kept")),
    unfinished
      ? el("p", { className: "resume" }, el("button", { className: "primary", onclick: () => resume(unfinished) },
          say("resume", { name: unfinished.rater, done: unfinished.trials.filter(isDone).length, of: unfinished.trials.length })))
      : null,
    el("label", { className: "field" }, el("b", {}, say("your_name")),
      el("input", { id: "rater", type: "text", value: setup.rater, maxLength: 60, autocomplete: "off", oninput: (event) => (setup.rater = event.target.value) }),
      el("small", {}, say("name_help"))),
    el("fieldset", {}, el("legend", {}, say("kind")),
      choice("mushra", say("mushra"), say("mushra_help")),
      choice("preference", say("preference"), say("preference_help"))),
    el("fieldset", {}, el("legend", {}, say("takes_part")),
      el("div", { className: "checks" }, ...offered
        .filter(({ role }) => setup.mode === "mushra" || role !== "anchor")
        .map(({ name, role }) => el("label", {},
          el("input", { type: "checkbox", value: name, checked: setup.systems.has(name), onchange: (event) => {
            if (event.target.checked) setup.systems.add(name);
            else setup.systems.delete(name);
            render();
          } }), el("span", {}, name), role === "system" || say(role) === name ? null : el("small", {}, say(role)))))),
    el("div", { className: "field" }, el("b", {}, say("number_of_clips")), filters(),
      el("div", { className: "range" },
        el("input", { id: "count", type: "range", min: 1, max: total, value: count, "aria-label": say("number_of_clips"), oninput: (event) => {
          setup.count = Number(event.target.value);
          render("#count");
        } }), el("output", {}, `${count} / ${total}`))),
    el("p", { className: "start" },
      el("button", { id: "start", className: "primary", onclick: start }, say("start")),
      el("span", {}, say("estimate", { trials, minutes }))),
    view.error ? el("p", { className: "message error" }, view.error) : null,
    saveLine(),
  ); // prettier-ignore
}

function saveLine() {
  const count = shelf.finishedTrials;
  if (!count) return null;
  return el("p", { className: "save" }, el("button", { onclick: saveCsv }, say("save_csv")), el("span", {}, say("saved_trials", { n: count })));
}

function testedNames() {
  const isOffered = ({ name, role }) =>
    view.setup.systems.has(name) && (view.setup.mode === "mushra" || role !== "anchor");
  return page.systems.filter(isOffered).map(({ name }) => name);
}

function start() {
  const { mode, count } = view.setup;
  const rater = view.setup.rater.trim();
  const names = testedNames();
  view.error = !rater ? say("need_name") : names.length < 2 ? say("need_two") : "";
  const clips = filtered().filter((clip) => clip.versions.filter((v) => names.includes(v.name)).length > 1);
  if (!view.error && !clips.length) view.error = say("need_two");
  if (view.error) return render();
  const session = newSession(page, mode, rater, drawClips(clips, count), names);
  shelf.sessions.push(session);
  shelf.keep();
  resume(session);
}

function resume(session) {
  view.session = session;
  view.mode = "test";
  openTrial();
}

function trialNow() {
  return view.session.trials[view.session.at];
}

function openTrial() {
  const trial = trialNow();
  const clip = clipOf.get(trial.clip);
  const truth = page.systems.find(({ role }) => role === "truth").name;
  trial.ratings ??= trial.order.map(() => null);
  const names = view.session.mode === "mushra" ? [truth, ...trial.order] : trial.order;
  view.clip = clip;
  prepare(clip, names, null).then(() => {
    if (view.mode !== "test") return;
    view.selected = 0;
    player.select(0);
    if (isDone(trial)) names.forEach((_, index) => player.heard.add(index));
    render();
  });
  render();
}

function labelOf(index) {
  if (view.session.mode === "preference") return LETTERS[index];
  return index === 0 ? say("reference") : LETTERS[index - 1];
}

function testView() {
  const { session } = view;
  const trial = trialNow();
  const isMushra = session.mode === "mushra";
  const numbers = { n: session.at + 1, of: session.trials.length };
  const isLast = session.at === session.trials.length - 1;
  return el(
    "main",
    { className: "test" },
    el("div", { className: "progress" }, el("i", { style: `width: ${(100 * session.at) / session.trials.length}%` })),
    el("div", { className: "cliphead" },
      el("h2", {}, say(isMushra ? "trial_of" : "pair_of", numbers)),
      el("p", { className: "question" }, say(isMushra ? "question_mushra" : "question_preference")),
      view.clip.text ? el("p", { className: "text" }, `“${view.clip.text}”`) : null),
    stage(),
    transport(),
    message(),
    !view.loaded ? null : isMushra ? sliders(trial) : choices(trial),
    el("div", { className: "steps" },
      el("button", { disabled: session.at === 0, onclick: () => { session.at--; openTrial(); } }, say("back")),
      el("p", { className: "wanting" }),
      el("button", { id: "next", className: "primary", onclick: next }, say(isLast ? "finish" : "next"))),
    el("p", { className: "leave" }, el("button", { className: "link", onclick: () => go("setup") }, say("leave"))),
  ); // prettier-ignore
}

function sliders(trial) {
  const scale = el("div", { className: "scale", "aria-hidden": "true" }, ...["bad", "poor", "fair", "good", "excellent"].map((word) => el("span", {}, say(word))));
  const rows = view.shown.map((_, index) => {
    const button = el("button", { className: "stimulus", onclick: () => select(index, true) }, el("kbd", {}, String(index + 1)), el("b", {}, labelOf(index)));
    if (index === 0) return el("div", { className: "slider", "data-index": index }, button, scale, el("output", {}));
    const value = trial.ratings[index - 1];
    const output = el("output", {}, value === null ? "–" : String(value));
    const input = el("input", {
      type: "range", min: 0, max: 100, step: 1, value: value ?? 50,
      className: value === null ? "untouched" : "",
      "aria-label": labelOf(index),
      oninput: (event) => rate(index, Number(event.target.value)),
      onpointerdown: () => { if (view.selected !== index) select(index); },
      onchange: (event) => rate(index, Number(event.target.value)),
    }); // prettier-ignore
    return el("div", { className: "slider", "data-index": index }, button, input, output);
  });
  return el("div", { className: "sliders" }, ...rows);
}

function rate(index, value) {
  const trial = trialNow();
  trial.ratings[index - 1] = value;
  shelf.keep();
  const row = one(`.slider[data-index="${index}"]`);
  row.querySelector("input").classList.remove("untouched");
  row.querySelector("output").textContent = String(value);
  paintWanting();
}

function choices(trial) {
  const answers = [
    [say("prefer", { x: "A" }), [100, 0]],
    [say("no_difference"), [50, 50]],
    [say("prefer", { x: "B" }), [0, 100]],
  ];
  return el(
    "div",
    { className: "choosing" },
    el("div", { className: "pair" }, ...view.shown.map((_, index) =>
      el("button", { className: "stimulus", "data-index": index, onclick: () => select(index, true) }, el("kbd", {}, String(index + 1)), el("b", {}, labelOf(index))))),
    el("div", { className: "answers" }, ...answers.map(([label, ratings]) =>
      el("button", { className: "answer", "aria-pressed": String(trial.ratings.join() === ratings.join()), onclick: () => {
        trial.ratings = ratings;
        shelf.keep();
        render();
      } }, label))),
  ); // prettier-ignore
}

// What a trial still lacks, as words; "" where it is complete.
function wanting() {
  if (!view.loaded) return say("loading");
  const trial = trialNow();
  const offset = view.shown.length - trial.order.length;
  const names = (indices) => indices.map((index) => labelOf(index + offset)).join(", ");
  const indices = trial.order.map((_, index) => index);
  const unheard = indices.filter((index) => !player.heard.has(index + offset));
  if (unheard.length) return say("still_unheard", { names: names(unheard) });
  const unrated = indices.filter((index) => trial.ratings[index] === null);
  if (unrated.length) return say("still_unrated", { names: names(unrated) });
  return "";
}

function paintWanting() {
  if (!one(".wanting")) return;
  const lacking = wanting();
  const trial = trialNow();
  const hasTruth = trial.order.some((name) => roleOf.get(name) === "truth");
  const hint = !lacking && view.session.mode === "mushra" && hasTruth && !trial.ratings.includes(100) ? say("none_at_100") : "";
  one(".wanting").textContent = lacking || hint;
  one("#next").disabled = Boolean(lacking);
}

function next() {
  if (wanting()) return;
  const { session } = view;
  trialNow().rated_at = new Date().toISOString();
  session.at++;
  shelf.keep();
  if (session.at < session.trials.length) return openTrial();
  player.pause();
  view.mode = "result";
  render();
}

function resultView() {
  const { session } = view;
  const { means, low, of, excluded } = summarise(page, session);
  const isMushra = session.mode === "mushra";
  return el(
    "main",
    { className: "sheet" },
    el("h2", {}, say("result_title")),
    el("table", {},
      el("thead", {}, el("tr", {}, el("th", { className: "name" }, say("result_row")), el("th", { className: "num" }, say(isMushra ? "result_mean" : "result_won")), el("th", { className: "bar" }), el("th", { className: "num" }, say("result_count")))),
      el("tbody", {}, ...means.map(({ name, mean, count }) =>
        el("tr", { style: `--colour: ${colourOf(name)}` },
          el("td", { className: "name" }, el("i", { className: "dot" }), name, " ", roleTag(name)),
          el("td", { className: "num" }, isMushra ? mean.toFixed(1) : `${mean.toFixed(0)} %`),
          el("td", { className: "bar" }, el("i", { style: `width: ${mean}%` })),
          el("td", { className: "num" }, String(count)))))),
    of && isMushra ? el("p", { className: excluded ? "note" : "hint" }, say(excluded ? "screened" : "passed", { low, of })) : null,
    el("p", {}, say("result_text")),
    el("pre", {}, "python -m saga_sr.compare --ratings *.csv"),
    el("p", { className: "start" },
      el("button", { id: "save", className: "primary", onclick: saveCsv }, say("save_csv")),
      el("button", { onclick: () => go("setup") }, say("again"))),
  ); // prettier-ignore
}

function saveCsv() {
  const raters = distinct(shelf.sessions.map((session) => session.rater)).join("-");
  const name = `ratings-${raters}-${page.id}.csv`.replace(/[\\/:*?"<>|\s]+/g, "-");
  const address = URL.createObjectURL(new Blob([toCsv(page, shelf.sessions)], { type: "text/csv" }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

// ---- acts ----

function select(index, andPlay = false) {
  if (!view.loaded || index < 0 || index >= view.shown.length) return;
  view.selected = index;
  player.select(index);
  if (andPlay && !player.isPlaying) player.play();
  const slider = view.mode === "test" ? one(`.slider[data-index="${index}"] input`) : null;
  if (slider) slider.focus({ preventScroll: true });
  paintAll();
}

function togglePlay() {
  player.toggle();
  paintAll();
}

function toggleLoop() {
  player.setLoop(!player.isLooping);
  paintAll();
}

function clearRegion() {
  player.setRegion(null);
  paintAll();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (view.mode !== "compare" && view.mode !== "test") return;
  const field = event.target;
  if (field.tagName === "SELECT" || (field.tagName === "INPUT" && field.type !== "range")) return;
  const isSlider = field.tagName === "INPUT";
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const actions = {
    " ": togglePlay,
    ArrowUp: () => select((view.selected + view.shown.length - 1) % view.shown.length),
    ArrowDown: () => select((view.selected + 1) % view.shown.length),
    ArrowLeft: isSlider ? null : () => player.seek(player.position - SEEK_S),
    ArrowRight: isSlider ? null : () => player.seek(player.position + SEEK_S),
    Home: isSlider ? null : () => player.seek(player.region ? player.region.start : 0),
    l: toggleLoop,
    Escape: clearRegion,
    n: view.mode === "compare" ? () => stepClip(1) : null,
    p: view.mode === "compare" ? () => stepClip(-1) : null,
    Enter: view.mode === "test" && field.tagName !== "BUTTON" ? next : null,
  };
  const action = /^[1-9]$/.test(key) ? () => select(Number(key) - 1, view.mode === "test") : actions[key];
  if (!action) return;
  event.preventDefault();
  action();
  paintAll();
}

function attachPointer(canvas) {
  let press = null;
  const timeAt = (event) => {
    const box = canvas.getBoundingClientRect();
    const share = (event.clientX - box.left - axisWidth()) / (box.width - axisWidth());
    return Math.min(Math.max(share, 0), 1) * player.duration;
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (!view.loaded || event.button > 0) return;
    canvas.setPointerCapture(event.pointerId);
    press = { x: event.clientX, time: timeAt(event), isDrag: false };
  });
  canvas.addEventListener("pointermove", (event) => {
    showPointer(canvas, event, timeAt(event));
    if (!press) return;
    press.isDrag ||= Math.abs(event.clientX - press.x) > DRAG_PX;
    if (!press.isDrag) return;
    const [start, end] = [press.time, timeAt(event)].sort((a, b) => a - b);
    press.region = { start, end: Math.max(end, Math.min(start + 0.05, player.duration)) };
    paintStage(press.region);
  });
  const release = (event) => {
    if (!press) return;
    const { isDrag, region, time } = press;
    press = null;
    if (event.type === "pointercancel") return paintStage();
    if (isDrag && region && region.end - region.start > 0.03) {
      if (!player.isLooping) player.setLoop(true);
      player.setRegion(region);
      if (!player.isPlaying) player.play(region.start);
    } else if (player.isPlaying) player.seek(time);
    else {
      player.seek(time);
      player.play();
    }
    paintAll();
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => (one(".pointer").textContent = ""));
}

function showPointer(canvas, event, time) {
  const box = canvas.getBoundingClientRect();
  const height = box.height - AXIS_HEIGHT;
  const share = 1 - (event.clientY - box.top) / height;
  const hz = (share * view.clip.sample_rate) / 2;
  const parts = [`${time.toFixed(2)} s`];
  if (view.mode === "compare" && share >= 0) parts.push(hertz(hz));
  one(".pointer").textContent = view.loaded ? parts.join(" · ") : "";
}

// ---- painting what moves ----

const AXIS_HEIGHT = 20;
const axisWidth = () => (view.mode === "compare" ? 34 : 0);

function paintStage(preview = null) {
  const canvas = one(".stage canvas");
  if (!canvas) return;
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  }
  const paper = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--soft");
  paper.setTransform(ratio, 0, 0, ratio, 0, 0);
  paper.clearRect(0, 0, width, height);
  const [left, bottom] = [axisWidth(), height - AXIS_HEIGHT];
  const span = width - left;
  const isOpen = view.mode === "compare";
  paper.fillStyle = isOpen ? "#000004" : style.getPropertyValue("--well");
  paper.fillRect(left, 0, span, bottom);
  if (!view.loaded) return;
  const { clip, images, envelope } = view.loaded;
  const x = (time) => left + (time / player.duration) * span;
  paper.font = "11px system-ui, sans-serif";
  if (isOpen) {
    paper.imageSmoothingQuality = "high";
    paper.drawImage(images[view.selected], left, 0, span, bottom);
    const y = (hz) => bottom * (1 - hz / (clip.sample_rate / 2));
    paper.fillStyle = ink;
    paper.textAlign = "right";
    for (const tick of ticksOf(0, clip.sample_rate / 2000, 5)) {
      if (y(tick * 1000) > 22) paper.fillText(tick ? String(tick) : "0", left - 6, y(tick * 1000) + (tick ? 4 : 0));
    }
    paper.fillText("kHz", left - 6, 10);
    paper.strokeStyle = "rgba(255, 255, 255, 0.85)";
    paper.setLineDash([5, 5]);
    paper.beginPath();
    paper.moveTo(left, Math.round(y(clip.cutoff_hz)) + 0.5);
    paper.lineTo(width, Math.round(y(clip.cutoff_hz)) + 0.5);
    paper.stroke();
    paper.setLineDash([]);
    paper.fillStyle = "rgba(255, 255, 255, 0.9)";
    paper.fillText(say("cutoff_at", { hz: hertz(clip.cutoff_hz) }), width - 8, y(clip.cutoff_hz) - 6);
  } else {
    const loudest = Math.max(...envelope, 1e-6);
    paper.fillStyle = style.getPropertyValue("--wave");
    envelope.forEach((peak, column) => {
      const tall = Math.max(1, (peak / loudest) * bottom * 0.84);
      paper.fillRect(left + (column * span) / envelope.length, (bottom - tall) / 2, span / envelope.length + 0.4, tall);
    });
  }
  paper.fillStyle = ink;
  paper.textAlign = "center";
  for (const tick of ticksOf(0, player.duration, Math.max(3, Math.round(span / 110)))) {
    const place = Math.min(Math.max(x(tick), left + 8), width - 14);
    paper.fillText(`${+tick.toFixed(2)} s`, place, height - 5);
  }
  const region = preview || player.region;
  if (region) {
    paper.fillStyle = isOpen ? "rgba(0, 0, 0, 0.5)" : style.getPropertyValue("--veil");
    paper.fillRect(left, 0, x(region.start) - left, bottom);
    paper.fillRect(x(region.end), 0, width - x(region.end), bottom);
    paper.fillStyle = style.getPropertyValue("--accent");
    for (const edge of [region.start, region.end]) paper.fillRect(x(edge) - 1, 0, 2, bottom);
  }
  paper.fillStyle = isOpen ? "#fff" : style.getPropertyValue("--ink");
  paper.fillRect(x(player.position) - 0.75, 0, 1.5, bottom);
}

function paintMoving() {
  paintStage();
  const clock = one(".clock");
  if (clock) clock.textContent = `${player.position.toFixed(1)} / ${player.duration.toFixed(1)} s`;
  const share = player.duration ? (100 * player.position) / player.duration : 0;
  for (const head of all(".strip .head")) head.style.left = `${share}%`;
}

function paintAll() {
  const button = one(".play");
  if (button) {
    button.dataset.state = player.isPlaying ? "playing" : "paused";
    button.setAttribute("aria-label", say(player.isPlaying ? "pause" : "play"));
    button.title = say(player.isPlaying ? "pause" : "play");
    button.disabled = !view.loaded;
    const { region } = player;
    const what = region
      ? say("loop_region", { from: region.start.toFixed(2), to: region.end.toFixed(2) })
      : say("loop_all");
    const loop = one(".loop");
    loop.textContent = `${say("loop")} · ${what}`;
    loop.setAttribute("aria-pressed", String(player.isLooping));
    one(".clear").hidden = !region;
    const current = view.shown[view.selected];
    const plate = one(".nameplate");
    plate.textContent = !view.loaded || !current ? "" : view.mode === "test" ? labelOf(view.selected) : current.name;
    plate.style.setProperty("--colour", view.mode === "test" || !current ? "var(--accent)" : colourOf(current.name));
  }
  all("[data-version]").forEach((row, index) => row.setAttribute("aria-selected", String(index === view.selected)));
  all(".stimulus").forEach((node, index) => node.setAttribute("aria-pressed", String(index === view.selected)));
  paintWanting();
  paintMoving();
}

function render(focus = null) {
  const scrolled = [one("aside ol")?.scrollTop ?? 0, window.scrollY];
  const views = { compare: compareView, setup: setupView, test: testView, result: resultView };
  document.documentElement.lang = Language.current === "zh" ? "zh-CN" : "en";
  document.title = `${say("listening")}: ${page.title}`;
  app.replaceChildren(header(), views[view.mode]());
  app.dataset.mode = view.mode;
  const list = one("aside ol");
  if (list) list.scrollTop = scrolled[0];
  window.scrollTo(0, scrolled[1]);
  if (focus) one(focus).focus();
  paintAll();
}

function tick() {
  if (player.isPlaying) paintMoving();
  requestAnimationFrame(tick);
}

Language.choose();
player.onstop = paintAll;
document.addEventListener("keydown", onKey);
window.addEventListener("resize", paintAll);
if (page.clips.length) choose(page.clips[0]);
else render();
requestAnimationFrame(tick);
