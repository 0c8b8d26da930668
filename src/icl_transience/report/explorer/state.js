"use strict";
// What is chosen: one object, which the fragment of the address keeps, so that a view can be sent.

const VIEWS = { curves: "Curves", plane: "Strategy plane", heads: "Heads" };
let state;

function initialState() {
  const first = DATA.experiments[0];
  return {
    view: "curves",
    experiment: [first.name],
    run: null, // null: all; else ["experiment/run", …]
    seed: null,
    evaluator: null, // null: those that the figures draw
    metric: "default",
    x: "log",
    y: "figures",
    show: "mean",
    panels: "run",
    loss: "shown",
    at: null, // null: the end
    across: "icl",
    upwards: null,
    measure: null,
    on: null,
    of: null, // the seed whose heads are shown; null: the first
    claim: "",
    theme: "system",
  };
}

const LISTS = ["experiment", "run", "seed", "evaluator"];

function fragment() {
  const initial = initialState(), found = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (JSON.stringify(value) === JSON.stringify(initial[key])) continue;
    // An empty text stands for a list without any member.
    for (const one of LISTS.includes(key) ? (value.length ? value : [""]) : [value]) found.append(key, one);
  }
  return found.toString();
}

function readFragment() {
  const given = new URLSearchParams(location.hash.slice(1));
  state = initialState();
  for (const key of Object.keys(state)) {
    if (!given.has(key)) continue;
    const values = given.getAll(key).filter((one) => one !== "");
    state[key] = LISTS.includes(key) ? values : key === "at" ? Number(values[0]) : values[0];
  }
  // An address may be older than the study: what is not there any more is not shown.
  state.experiment = state.experiment.filter(experimentNamed);
  if (!(state.view in VIEWS)) state.view = "curves";
}

function writeFragment() {
  const text = fragment();
  if (text !== location.hash.slice(1)) history.replaceState(null, "", `#${text}`);
}

// What the state means.

function experiments() {
  return DATA.experiments.filter((one) => state.experiment.includes(one.name));
}

function runsOf(experiment) {
  return experiment.runs.filter((run) => state.run === null || state.run.includes(`${experiment.name}/${run.name}`));
}

function seeds() {
  const all = new Set(experiments().flatMap((one) => one.lanes.map((lane) => lane.seed)));
  return [...all].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
}

function lanesOf(experiment, run) {
  const number = experiment.runs.indexOf(run);
  return [...experiment.lanes.keys()].filter((i) => {
    const lane = experiment.lanes[i];
    return lane.run === number && (state.seed === null || state.seed.includes(lane.seed));
  });
}

function evaluators() {
  return [...new Set(experiments().flatMap((one) => one.evaluators))];
}

function shownEvaluators(experiment) {
  const chosen = state.evaluator === null ? experiment.drawn : state.evaluator;
  return experiment.evaluators.filter((name) => chosen.includes(name));
}

function upwards() {
  return state.upwards ?? ["ciwl", "iwl"].find((name) => evaluators().includes(name)) ?? evaluators()[0];
}

function points() {
  const found = new Set(experiments().flatMap((one) => one.points.flat()));
  return [...found].sort((a, b) => a - b);
}

function at() {
  return state.at ?? points().at(-1);
}

function isDark() {
  return state.theme === "dark" || (state.theme === "system" && matchMedia("(prefers-color-scheme: dark)").matches);
}

function colour(pair) {
  return pair[isDark() ? 1 : 0];
}

// Change something and show it.
function set(changes) {
  Object.assign(state, changes);
  writeFragment();
  render();
}
