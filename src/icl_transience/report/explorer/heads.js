"use strict";
// Heads over training, where circuits stand: a heat map a run, a row a head, a column a snapshot.

function withHeads() {
  return experiments().filter((one) => one.heads);
}

function measure() {
  const all = withHeads().flatMap((one) => one.heads.measures);
  return all.includes(state.measure) ? state.measure : all[0];
}

function measuredOn(experiment) {
  const known = experiment.heads.evaluators;
  return known.includes(state.on) ? state.on : known.includes(experiment.summarised) ? experiment.summarised : known[0];
}

// The lane whose heads are shown: heads of seeds do not correspond, so there is no mean over them.
function laneOfHeads(experiment, run) {
  const lanes = experiment.lanes, number = experiment.runs.indexOf(run);
  const its = [...lanes.keys()].filter((i) => lanes[i].run === number);
  return its.find((i) => lanes[i].seed === state.of) ?? its[0];
}

function renderHeads(host) {
  const shown = withHeads();
  if (!shown.length) {
    host.textContent = "No heads were measured in what is chosen: the key `circuits` of an experiment asks for it.";
    return;
  }
  const meaning = DATA.names.measures[measure()].meaning;
  if (meaning) host.appendChild(document.createElement("p")).textContent = `${DATA.names.measures[measure()].label}: ${meaning}`;
  const grid = host.appendChild(document.createElement("div"));
  grid.className = "grid heads";
  for (const experiment of experiments())
    if (!experiment.heads) host.appendChild(document.createElement("p")).textContent = `${experiment.name}: no heads were measured.`;
  for (const experiment of shown) for (const run of runsOf(experiment)) drawHeads(grid, experiment, run);
}

function drawHeads(grid, experiment, run) {
  const lane = laneOfHeads(experiment, run), on = measuredOn(experiment);
  const rows = experiment.heads.heads.map((name, head) => [name, headCurve(experiment, lane, on, measure(), head)]).filter(([, one]) => one);
  const figure = grid.appendChild(document.createElement("figure"));
  figure.className = "panel";
  const several = withHeads().length > 1 ? `${experiment.name}: ` : "";
  figure.appendChild(document.createElement("figcaption")).textContent = `${several}${run.name}, seed ${experiment.lanes[lane].seed}, on ${DATA.names.evaluators[on].label}`;
  if (!rows.length) {
    figure.append("This measure was not taken here.");
    return;
  }
  const first = state.x === "log" ? 1 : 0;
  const xs = rows[0][1].xs.filter((x) => x >= first), skipped = rows[0][1].xs.length - xs.length;
  if (!xs.length) {
    figure.append("There is nothing after the snapshot at 0, for which a logarithmic axis has no place.");
    return;
  }
  const range = experiment.heads.ranges[on][measure()], map = DATA.names.maps[DATA.names.measures[measure()].map];
  const colourOf = (value) => map[Math.max(0, Math.min(map.length - 1, Math.round(((value - range[0]) / (range[1] - range[0])) * (map.length - 1))))];
  // Letters as large as elsewhere, on a narrow screen too.
  const size = { width: Math.min(560, figure.clientWidth), left: 44, row: Math.max(8, Math.min(22, 320 / rows.length)), top: 4 };
  const cell = (size.width - size.left - 24) / xs.length, foot = size.top + size.row * rows.length;
  const root = document.createElementNS(SVG, "svg");
  root.setAttribute("viewBox", `0 0 ${size.width} ${foot + 40}`);
  root.setAttribute("tabindex", "0");
  root.setAttribute("role", "application");
  root.setAttribute("aria-roledescription", "heat map");
  root.setAttribute("aria-label", `${DATA.names.measures[measure()].label}, ${rows.length} heads by ${xs.length} snapshots. Arrow keys read values.`);
  const every = Math.ceil(rows.length / 16);
  rows.forEach(([name, one], r) => {
    if (r % every === 0) svg(root, "text", { x: size.left - 6, y: size.top + size.row * (r + 0.5) + 4, "text-anchor": "end" }, name);
    xs.forEach((_, c) => {
      const value = one.ys[c + skipped];
      if (value !== null) svg(root, "rect", { x: size.left + cell * c, y: size.top + size.row * r, width: cell + 0.4, height: size.row, fill: colourOf(value) });
    });
  });
  rows.forEach(([name], r) => {
    if (r && name.split(".")[0] !== rows[r - 1][0].split(".")[0]) svg(root, "line", { x1: size.left, x2: size.left + cell * xs.length, y1: size.top + size.row * r, y2: size.top + size.row * r, class: "between" });
  });
  markPeak(root, experiment.lanes[lane].peak_at, xs, size, cell, foot);
  const ticks = Math.min(5, xs.length);
  for (let t = 0; t < ticks; t++) {
    const c = Math.round((t * (xs.length - 1)) / Math.max(1, ticks - 1));
    svg(root, "text", { x: size.left + cell * (c + 0.5), y: foot + 16, "text-anchor": "middle" }, count(xs[c]));
  }
  svg(root, "text", { x: size.left + (cell * xs.length) / 2, y: foot + 34, "text-anchor": "middle" }, "sequences seen");
  figure.append(root);
  figure.append(scaleOf(range, map));
  readCells(figure, root, rows, xs, skipped, size, cell);
}

function markPeak(root, peak, xs, size, cell, foot) {
  if (peak === undefined || peak === null) return;
  const x = size.left + cell * (nearest(xs, peak) + 0.5);
  svg(svg(root, "line", { x1: x, x2: x, y1: size.top, y2: foot, class: "peak" }), "title", {}, `this seed's peak, at ${count(peak)}`);
}

function scaleOf(range, map) {
  const scale = document.createElement("p");
  scale.className = "scale";
  const bar = document.createElement("span");
  bar.style.background = `linear-gradient(to right, ${map.join(",")})`;
  scale.append(number(range[0]), bar, number(range[1]));
  return scale;
}

// The pointer or the arrow keys choose a cell, and its value is said below.
function readCells(figure, root, rows, xs, skipped, size, cell) {
  const values = figure.appendChild(document.createElement("p"));
  values.className = "values";
  values.setAttribute("aria-live", "polite");
  const frame = svg(root, "rect", { width: cell, height: size.row, class: "frame", visibility: "hidden" });
  let r = 0, c = xs.length - 1;
  const read = () => {
    frame.setAttribute("x", size.left + cell * c);
    frame.setAttribute("y", size.top + size.row * r);
    frame.setAttribute("visibility", "visible");
    values.textContent = `head ${rows[r][0]} at ${count(xs[c])}: ${number(rows[r][1].ys[c + skipped])}`;
  };
  const within = (value, most) => Math.max(0, Math.min(most - 1, value));
  root.addEventListener("pointermove", (event) => {
    const box = root.getBoundingClientRect(), scale = size.width / box.width;
    c = within(Math.floor(((event.clientX - box.left) * scale - size.left) / cell), xs.length);
    r = within(Math.floor(((event.clientY - box.top) * scale - size.top) / size.row), rows.length);
    read();
  });
  root.addEventListener("keydown", (event) => {
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    if (down === undefined) return;
    event.preventDefault();
    [r, c] = [within(r + down, rows.length), within(c + right, xs.length)];
    read();
  });
  values.textContent = "Point at a cell, or use the arrow keys, to read it.";
}
