// Curves of the runs: a small SVG per metric.

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// About `count` round numbers within [low, high].
function ticksOf(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) {
    ticks.push(Math.abs(value) < step / 1e6 ? 0 : value);
  }
  return ticks;
}

function shortNumber(value, digits = 3) {
  if (Math.abs(value) >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (Math.abs(value) >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return String(+value.toPrecision(Math.min(digits, 12))).replace("-", "−");
}

function chart({ metric, lines }, colourOf) {
  const [width, height, left, right, top, bottom] = [360, 210, 44, 10, 10, 26];
  const points = lines.flatMap((line) =>
    line.steps.map((step, i) => [step, line.values[i]]).filter((point) => point[1] !== null),
  );
  const xs = points.map((point) => point[0]);
  const ys = points.map((point) => point[1]);
  let [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  if (x1 === x0) [x0, x1] = [x0 - 1, x1 + 1];
  const room = (y1 - y0) * 0.06 || Math.abs(y1) * 0.1 || 1;
  [y0, y1] = [y0 - room, y1 + room];
  const x = (value) => left + ((value - x0) / (x1 - x0)) * (width - left - right);
  const y = (value) => height - bottom - ((value - y0) / (y1 - y0)) * (height - top - bottom);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": metric });
  const ticks = ticksOf(y0, y1, 4);
  const digits = Math.max(3, Math.ceil(Math.log10(Math.max(...ticks.map(Math.abs)) / (ticks[1] - ticks[0]))) + 1) || 3; // prettier-ignore
  for (const tick of ticks) {
    picture.append(
      svg("line", { x1: left, x2: width - right, y1: y(tick), y2: y(tick), class: "grid" }),
      svg("text", { x: left - 6, y: y(tick) + 3.5, "text-anchor": "end" }, shortNumber(tick, digits)),
    );
  }
  for (const tick of ticksOf(x0, x1, 4)) {
    picture.append(
      svg("text", { x: x(tick), y: height - 8, "text-anchor": "middle" }, shortNumber(tick)),
    );
  }
  for (const line of lines) {
    const kept = line.steps.map((step, i) => [step, line.values[i]]).filter((p) => p[1] !== null);
    const path = kept.map(([step, value], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`);
    const style = { stroke: colourOf(line.run), class: line.common ? "curve common" : "curve" };
    picture.append(svg("path", { d: path.join(""), ...style }));
    if (kept.length < 3) {
      for (const [step, value] of kept) {
        picture.append(svg("circle", { cx: x(step), cy: y(value), r: 3, fill: colourOf(line.run) }));
      }
    }
  }
  const cursor = svg("line", { y1: top, y2: height - bottom, class: "cursor" });
  picture.append(cursor);
  const readout = document.createElement("p");
  readout.className = "readout";
  const rest = () => {
    cursor.style.display = "none";
    readout.textContent = "";
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const wanted = x0 + (((event.clientX - box.left) / box.width) * width - left) / (width - left - right) * (x1 - x0); // prettier-ignore
    const near = lines
      .filter((line) => !line.common && line.steps.length)
      .map((line) => {
        const best = line.steps.reduce((b, step, i) =>
          Math.abs(step - wanted) < Math.abs(line.steps[b] - wanted) ? i : b, 0); // prettier-ignore
        return { run: line.run, step: line.steps[best], value: line.values[best] };
      });
    if (!near.length) return;
    cursor.style.display = "";
    cursor.setAttribute("x1", x(near[0].step));
    cursor.setAttribute("x2", x(near[0].step));
    const values = near.filter((n) => n.value !== null).map((n) => `${n.run} ${shortNumber(n.value)}`);
    readout.textContent = `${shortNumber(near[0].step)}: ${values.join(" · ")}`;
  });
  picture.addEventListener("pointerleave", rest);
  rest();
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = metric;
  figure.append(caption, picture, readout);
  return figure;
}
