"use strict";
// The strategy plane: one evaluator across, another upwards, a path a run, and a point on it that moves with time.

const SVG = "http://www.w3.org/2000/svg";
const PLANE = { size: 420, left: 52, bottom: 44, top: 12, right: 12 };

function svg(parent, name, attributes, text) {
  const node = parent.appendChild(document.createElementNS(SVG, name));
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// Paths of a run: {label, colour, xs, across, up}, of the mean over seeds and, thin, of every seed.
function pathsOf(experiment, run) {
  const looks = looksOfRun(run);
  const [one, other] = [across(), upwards()];
  // A lane may lack one of the two.
  const both = lanesOf(experiment, run)
    .map((lane) => [lane, curve(experiment, lane, one, state.metric), curve(experiment, lane, other, state.metric)])
    .filter(([, a, b]) => a && b);
  if (!both.length) return [];
  const join = (a, b, more) => {
    const at = new Map(b.xs.map((x, i) => [x, b.ys[i]]));
    const kept = a.xs.map((x, i) => [x, a.ys[i], at.get(x)]).filter(([, ...ys]) => ys.every((y) => y !== null && y !== undefined));
    return { ...looks, ...more, xs: kept.map(([x]) => x), across: kept.map(([, y]) => y), up: kept.map(([, , y]) => y) };
  };
  const each = () => both.map(([lane, a, b]) => join(a, b, { label: `${run.name}, seed ${experiment.lanes[lane].seed}`, thin: true }));
  const mean = (place) => meanOf(both.map((found) => found[place]), experiment.t, false);
  const paths = state.show === "seeds" ? each() : [join(mean(1), mean(2), {})];
  return paths.filter((path) => path.xs.length);
}

function renderPlane(host) {
  if (!evaluators().length) {
    host.textContent = "No evaluator was asked in what is chosen.";
    return;
  }
  timeSlider(host);
  const grid = host.appendChild(document.createElement("div"));
  grid.className = "grid planes";
  for (const experiment of experiments()) {
    const figure = grid.appendChild(document.createElement("figure"));
    figure.className = "panel";
    figure.appendChild(document.createElement("figcaption")).textContent = experiment.name;
    const paths = runsOf(experiment).flatMap((run) => pathsOf(experiment, run));
    if (!paths.length) {
      figure.append(`No lane of what is chosen has values of both ${across()} and ${upwards()} here.`);
      continue;
    }
    figure.append(planeOf(experiment, paths));
    legend(figure, [{ lines: paths }]);
    const values = figure.appendChild(document.createElement("p"));
    values.className = "values";
    figure.moving = { paths, values, marks: [...figure.querySelectorAll(".moving")] };
  }
  movePoints();
}

function planeOf(experiment, paths) {
  const { size, left, bottom, top, right } = PLANE;
  const metric = metricOf(across(), state.metric);
  const all = paths.flatMap((path) => [...path.across, ...path.up]);
  const most = metric === "loss" ? Math.max(...all) : 1;
  const x = (value) => left + (value / most) * (size - left - right), y = (value) => size - bottom - (value / most) * (size - top - bottom);
  const root = document.createElementNS(SVG, "svg");
  root.setAttribute("viewBox", `0 0 ${size} ${size}`);
  root.setAttribute("role", "img");
  const words = `${DATA.names.evaluators[across()].label} across, ${DATA.names.evaluators[upwards()].label} upwards, ${paths.length} paths`;
  root.setAttribute("aria-label", words);
  for (let i = 0; i <= 5; i++) {
    const value = (most * i) / 5, said = String(Number(value.toPrecision(2)));
    svg(root, "line", { x1: x(value), x2: x(value), y1: y(0), y2: y(most), class: "gridline" });
    svg(root, "line", { x1: x(0), x2: x(most), y1: y(value), y2: y(value), class: "gridline" });
    svg(root, "text", { x: x(value), y: y(0) + 16, "text-anchor": "middle" }, said);
    svg(root, "text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, said);
  }
  svg(root, "text", { x: x(most / 2), y: size - 6, "text-anchor": "middle" }, DATA.names.evaluators[across()].label);
  svg(root, "text", { x: 12, y: y(most / 2), "text-anchor": "middle", transform: `rotate(-90 12 ${y(most / 2)})` }, DATA.names.evaluators[upwards()].label);
  const run = runsOf(experiment)[0];
  for (const level of chances(run, [across()])) svg(root, "line", { x1: x(level), x2: x(level), y1: y(0), y2: y(most), class: "chance" });
  for (const level of chances(run, [upwards()])) svg(root, "line", { x1: x(0), x2: x(most), y1: y(level), y2: y(level), class: "chance" });
  for (const path of paths) {
    const d = path.xs.map((_, i) => `${i ? "L" : "M"}${x(path.across[i]).toFixed(1)} ${y(path.up[i]).toFixed(1)}`).join("");
    const line = svg(root, "path", { d, fill: "none", stroke: path.colour, "stroke-width": path.thin ? 1 : 2, opacity: path.thin ? 0.7 : 1 });
    svg(line, "title", {}, path.label);
  }
  for (const path of paths) {
    const mark = svg(root, "circle", { r: path.thin ? 4 : 6, fill: path.colour, class: "moving" });
    svg(mark, "title", {}, path.label);
    mark.at = (i) => [x(path.across[i]), y(path.up[i])];
  }
  return root;
}

let playing = null;

function timeSlider(host) {
  const all = points();
  const row = host.appendChild(document.createElement("p"));
  row.className = "time";
  const play = row.appendChild(document.createElement("button"));
  play.type = "button";
  play.id = "play";
  const label = row.appendChild(document.createElement("label"));
  label.append("sequences seen ");
  const slider = label.appendChild(document.createElement("input"));
  const said = label.appendChild(document.createElement("output"));
  Object.assign(slider, { type: "range", id: "time", min: 0, max: all.length - 1, step: 1 });
  slider.value = nearest(all, at());
  const show = () => {
    said.textContent = count(all[slider.value]);
    slider.setAttribute("aria-valuetext", said.textContent);
    play.textContent = playing ? "Stop" : "Play";
  };
  const move = () => {
    state.at = Number(slider.value) === all.length - 1 ? null : all[slider.value];
    writeFragment();
    show();
    movePoints();
  };
  slider.addEventListener("input", move);
  play.addEventListener("click", () => {
    if (playing) return stopPlaying(show);
    if (Number(slider.value) === all.length - 1) slider.value = 0;
    playing = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      if (Number(slider.value) === all.length - 1 || !slider.isConnected) stopPlaying(show);
      move();
    }, 120);
    show();
  });
  show();
}

function stopPlaying(show) {
  clearInterval(playing);
  playing = null;
  show();
}

// The last point not after `x`.
function nearest(all, x) {
  let found = 0;
  all.forEach((one, i) => one <= x && (found = i));
  return found;
}

function movePoints() {
  for (const { moving } of document.querySelectorAll(".planes figure")) {
    if (!moving) continue;
    const said = moving.paths.map((path, order) => {
      const i = nearest(path.xs, at()), [x, y] = moving.marks[order].at(i);
      moving.marks[order].setAttribute("cx", x);
      moving.marks[order].setAttribute("cy", y);
      return `${path.label} (${number(path.across[i])}, ${number(path.up[i])})`;
    });
    const some = said.slice(0, MOST_READ);
    moving.values.textContent = `at ${count(at())}: ${some.join(" · ")}${said.length > some.length ? ` · … ${said.length - some.length} more` : ""}`;
  }
}

