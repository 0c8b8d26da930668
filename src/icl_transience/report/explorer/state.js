"use strict";
// What is chosen: one object, which the fragment of the address keeps, so that a view can be sent.

const VIEWS = { curves: "Curves", plane: "Strategy plane", heads: "Heads" };
let state;

function initialState() {
  // None where a study has only tables of other lanes.
  const first = DATA.experiments.slice(0, 1);
  return {
    view: "curves",
    experiment: first.map((one) => one.name),
    run: null, // null: all; else ["experiment/run", …]
    seed: null,
    evaluator: null, // null: those that the figures draw
    metric: "default",
    x: first[0]?.x ?? "log",
    y: "figures",
    show: "mean",
    panels: "run",
    loss: "shown",
    at: null, // null: the end
    across: null, // null: see across() and upwards()
    upwards: null,
    measure: null,
    on: null,
    of: null, // the seed whose heads are shown; null: the first
    claim: "",
    theme: "system",
  };
}

const LISTS = ["experiment", "run", "seed", "evaluator"];

// What each part of the state may be, given those before it.
const KNOWN = {
  view: () => Object.keys(VIEWS),
  experiment: () => DATA.experiments.map((one) => one.name),
  run: () => experiments().flatMap((one) => one.runs.map((run) => `${one.name}/${run.name}`)),
  seed: () => seeds(),
  evaluator: () => evaluators(),
  metric: () => ["default", ...metrics().map(([name]) => name)],
  x: () => ["log", "linear"],
  y: () => ["figures", "linear", "log"],
  show: () => ["mean", "seeds"],
  panels: () => ["run", "evaluator"],
  loss: () => ["shown", "hidden"],
  at: () => DATA.experiments.flatMap((one) => one.points.flat()),
  across: () => evaluators(),
  upwards: () => evaluators(),
  measure: () => withHeads().flatMap((one) => one.heads.measures),
  on: () => withHeads().flatMap((one) => one.heads.evaluators),
  of: () => seeds(),
  claim: () => DATA.claims.map((claim) => `${claim.experiment}/${claim.name}`),
  theme: () => ["system", "light", "dark"],
};

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
    // An address may be older than the study, or mistyped: of what is not there, the default is shown.
    const known = KNOWN[key](), there = (key === "at" ? values.map(Number) : values).filter((one) => known.includes(one));
    if (there.length) state[key] = LISTS.includes(key) ? there : there[0];
    else if (LISTS.includes(key) && !values.length) state[key] = [];
  }
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

// Of the plane. Other experiments may be chosen meanwhile, without the evaluator that was; undefined: there is none.
function across() {
  const all = evaluators();
  if (all.includes(state.across)) return state.across;
  return all.includes("icl") ? "icl" : all.find((name) => name !== "ciwl" && name !== "iwl") ?? all[0];
}

function upwards() {
  const all = evaluators(), others = all.filter((name) => name !== across());
  if (all.includes(state.upwards)) return state.upwards;
  return ["ciwl", "iwl"].find((name) => others.includes(name)) ?? others[0] ?? all[0];
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
