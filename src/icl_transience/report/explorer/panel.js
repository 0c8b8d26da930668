"use strict";
// A panel of curves, drawn by uPlot: axes, bands, chance, and the values under the pointer or the arrow keys.

const drawn = [];

function cssOf(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function removePanels() {
  for (const one of drawn.splice(0)) one.destroy();
}

// Return x of all lines, and y of each, null where it has none.
function aligned(lines, first) {
  const xs = [...new Set(lines.flatMap((line) => line.xs))].filter((x) => x >= first).sort((a, b) => a - b);
  const place = new Map(xs.map((x, i) => [x, i]));
  const onto = (line, ys) => {
    // A gap where a lane has no number; nothing where it has no point.
    const found = new Array(xs.length).fill(undefined);
    line.xs.forEach((x, i) => place.has(x) && (found[place.get(x)] = ys[i]));
    return found;
  };
  return { xs, onto };
}

// The first point of all panels and the last, so that their axes are in step.
function spanOf(panels) {
  const all = panels.flatMap((panel) => aligned(panel.lines, state.x === "log" ? 1 : 0).xs);
  return all.reduce(([low, high], x) => [Math.min(low, x), Math.max(high, x)], [Infinity, -Infinity]);
}

function drawPanel(host, panel, span) {
  const logX = state.x === "log", logY = isLogarithmic(panel.evaluator);
  const { xs, onto } = aligned(panel.lines, logX ? 1 : 0);
  const positive = (ys) => (logY ? ys.map((y) => (y > 0 ? y : y === undefined ? y : null)) : ys);
  const data = [xs], series = [{}], bands = [], named = [];
  for (const line of panel.lines) {
    if (line.low) {
      const edge = { stroke: "transparent", width: 0, points: { show: false } };
      data.push(positive(onto(line, line.high)), positive(onto(line, line.low)));
      series.push(edge, { ...edge });
      bands.push({ series: [series.length - 2, series.length - 1], fill: `${line.colour}33` });
    }
    data.push(positive(onto(line, line.ys)));
    series.push({ stroke: line.colour, width: state.show === "seeds" ? 1 : 2, dash: line.dash ? [6, 3] : undefined, points: { show: xs.length === 1 } });
    named.push([series.length - 1, line]);
  }
  const figure = document.createElement("figure");
  figure.className = panel.loss ? "panel loss" : "panel";
  const title = figure.appendChild(document.createElement("figcaption"));
  title.textContent = panel.title + meanOfHowMany(panel.lines);
  const values = document.createElement("p");
  values.className = "values";
  host.append(figure);
  if (!data.slice(1).some((ys) => ys.some((y) => y !== null && y !== undefined))) {
    figure.append("Nothing of what is chosen has values here.");
    return;
  }
  const text = cssOf("--text"), faint = cssOf("--faint");
  // Of a logarithmic axis, powers of ten alone have lines.
  const powers = (logarithmic) => (logarithmic ? (_, splits) => splits.map((one) => (one && isPower(one) ? one : null)) : (_, splits) => splits);
  const lined = (logarithmic) => ({ grid: { stroke: faint, width: 1, filter: powers(logarithmic) }, ticks: { stroke: faint, size: 5 } });
  const axis = { stroke: text, font: "12px system-ui", labelFont: "12px system-ui", labelSize: 16 };
  const metric = metricOf(panel.evaluator, state.metric);
  const share = metric !== "loss" && !logY;
  const options = {
    width: host.panelWidth,
    height: panel.loss ? 170 : 270,
    scales: { x: { time: false, distr: logX ? 3 : 1, range: (_, low, high) => (low === xs[0] && high === xs.at(-1) ? span : [low, high]) }, y: { distr: logY ? 3 : 1, range: share ? [-0.02, 1.02] : undefined } },
    series, bands,
    axes: [
      { ...axis, ...lined(false), size: 40, label: "sequences seen", splits: logX ? (plot, _, low, high) => logSplits(low, high, plot.width) : undefined, filter: (_, splits) => splits, values: (_, splits) => splits.map(count) },
      { ...axis, ...lined(logY), size: 52, label: panel.words, values: (_, splits) => splits.map((y) => (y === null ? "" : String(Number(y.toPrecision(3))))) },
    ],
    legend: { show: false },
    cursor: { sync: { key: "seen", scales: ["x", null] }, drag: { x: true, y: false }, points: { size: 7 } },
    hooks: {
      draw: [(plot) => panel.chance.forEach((level) => drawChance(plot, level, logY))],
      setCursor: [(plot) => (values.textContent = reading(plot, named, xs))],
    },
  };
  const plot = new uPlot(options, data, figure);
  figure.append(values);
  values.textContent = lastValues(plot, named);
  accessible(plot, panel, named, values, xs);
  drawn.push(plot);
}

function meanOfHowMany(lines) {
  const numbers = [...new Set(lines.map((line) => line.n))];
  if (state.show !== "mean" || numbers.length !== 1) return "";
  return numbers[0] === 1 ? " (1 seed)" : ` (mean of ${numbers[0]} seeds)`;
}

// 1, 2 and 5 times powers of ten; over many decades, or where the screen is narrow, the powers alone. A number takes 40 pixels.
function logSplits(low, high, width) {
  const decades = Math.log10(high / low), room = (width - 90) / decades;
  const found = [], steps = decades > 4 || 40 > room * Math.log10(3) ? [1] : decades > 3 || 40 > room * Math.log10(2) ? [1, 3] : [1, 2, 5];
  for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10)
    for (const step of steps) if (power * step >= low && power * step <= high) found.push(power * step);
  return found;
}

function isPower(x) {
  return Math.abs(Math.log10(x) - Math.round(Math.log10(x))) < 1e-9;
}

function drawChance(plot, level, logY) {
  if (logY && level <= 0) return;
  const y = plot.valToPos(level, "y", true), { left, width } = plot.bbox, pen = plot.ctx;
  pen.save();
  pen.strokeStyle = cssOf("--grey");
  pen.setLineDash([2, 4]);
  pen.beginPath();
  pen.moveTo(left, y);
  pen.lineTo(left + width, y);
  pen.stroke();
  pen.restore();
}

const MOST_READ = 10;

// Values at a point, the highest first; of many lines those nearest to the pointer.
function valuesAt(plot, named, i) {
  const found = named.map(([s, line]) => [line, plot.data[s][i], place(line, plot.data[0][i])]).filter(([, y]) => y !== null && y !== undefined);
  const pointer = plot.cursor.top >= 0 ? plot.posToVal(plot.cursor.top, "y") : null;
  if (found.length > MOST_READ && pointer !== null) found.sort((a, b) => Math.abs(a[1] - pointer) - Math.abs(b[1] - pointer));
  const some = found.slice(0, MOST_READ).sort((a, b) => b[1] - a[1]);
  const said = some.map(([line, y, at]) => `${line.label} ${number(y)}${line.low ? ` (${number(line.low[at])} to ${number(line.high[at])})` : ""}`);
  return said.join(" · ") + (found.length > some.length ? ` · … ${found.length - some.length} more` : "");
}

function place(line, x) {
  return line.xs.indexOf(x);
}

function reading(plot, named, xs) {
  const i = plot.cursor.idx;
  return i === null || i === undefined ? lastValues(plot, named) : `at ${count(xs[i])}: ${valuesAt(plot, named, i)}`;
}

function lastValues(plot, named) {
  return `at the end (${count(plot.data[0].at(-1))}): ${valuesAt(plot, named, plot.data[0].length - 1)}`;
}

// Arrow keys move the cursor, of all panels, from point to point; what it reads is said.
function accessible(plot, panel, named, values, xs) {
  const root = plot.root;
  root.tabIndex = 0;
  root.setAttribute("role", "application");
  root.setAttribute("aria-roledescription", "chart");
  root.setAttribute("aria-label", `${panel.title}, over sequences seen. Arrow keys read values. ${values.textContent}`);
  const step = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 };
  root.addEventListener("keydown", (event) => {
    if (!(event.key in step)) return;
    event.preventDefault();
    const now = plot.cursor.idx ?? (step[event.key] > 0 ? -1 : xs.length);
    const next = Math.min(xs.length - 1, Math.max(0, now + step[event.key]));
    plot.setCursor({ left: plot.valToPos(xs[next], "x"), top: plot.over.clientHeight / 2 }, true, true);
    document.getElementById("reading").textContent = values.textContent;
  });
}
