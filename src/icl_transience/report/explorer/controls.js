"use strict";
// The controls: each writes one part of the state. They are made anew, and keep the focus, whenever the state changes.

// Where a control of the views of VIEWS has a meaning.
function renderControls() {
  const focused = document.activeElement?.id, host = document.getElementById("controls");
  const opened = new Set([...host.querySelectorAll("fieldset")].map((one) => one.scrollTop && [one.id, one.scrollTop]).filter(Boolean));
  host.replaceChildren();
  if (!DATA.experiments.length) return;
  boxes(host, "experiment", "Experiments", DATA.experiments.map((one) => [one.name, one.name]), state.experiment, (chosen) => set({ experiment: chosen, run: null, seed: null, evaluator: null, measure: null, claim: "" }));
  const runs = experiments().flatMap((one) => one.runs.map((run) => [`${one.name}/${run.name}`, experiments().length > 1 ? `${one.name}: ${run.name}` : run.name]));
  const allRuns = runs.map(([key]) => key);
  boxes(host, "run", "Runs", runs, state.run ?? allRuns, (chosen) => set({ run: unlessAll(chosen, allRuns) }));
  if (state.view === "heads") headsControls(host);
  else {
    boxes(host, "seed", "Seeds", seeds().map((one) => [one, one]), state.seed ?? seeds(), (chosen) => set({ seed: unlessAll(chosen, seeds()) }));
    choice(host, "show", "Seeds are shown as", [["mean", "mean with band"], ["seeds", "every seed"]]);
  }
  if (state.view === "curves") curvesControls(host);
  if (state.view === "plane") planeControls(host);
  if (state.view !== "heads") choice(host, "metric", "Metric", [["default", "of each its own (as in the figures)"], ...metrics()]);
  // The plane has no such axis.
  if (state.view !== "plane") choice(host, "x", "Axis of sequences seen", [["log", "logarithmic"], ["linear", "linear"]]);
  choice(host, "theme", "Colours", [["system", "as the system"], ["light", "light"], ["dark", "dark"]]);
  for (const [id, top] of opened) document.getElementById(id)?.scrollTo(0, top);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

function curvesControls(host) {
  const shown = state.evaluator ?? [...new Set(experiments().flatMap((one) => one.drawn))];
  boxes(host, "evaluator", "Evaluators", evaluators().map((name) => [name, DATA.names.evaluators[name].label]), shown, (chosen) => set({ evaluator: chosen }));
  choice(host, "panels", "A panel for", [["run", "each run"], ["evaluator", "each evaluator"]]);
  choice(host, "loss", "Training loss", [["shown", "below, in step"], ["hidden", "hidden"]]);
  choice(host, "y", "Vertical axis", [["figures", "as in the figures"], ["linear", "linear"], ["log", "logarithmic"]]);
}

function planeControls(host) {
  const known = evaluators().map((name) => [name, DATA.names.evaluators[name].label]);
  choice(host, "across", "Across", known, across());
  choice(host, "upwards", "Upwards", known, upwards());
}

function headsControls(host) {
  const shown = withHeads();
  if (!shown.length) return;
  const measures = [...new Set(shown.flatMap((one) => one.heads.measures))];
  choice(host, "measure", "Measure", measures.map((name) => [name, DATA.names.measures[name].label]), measure());
  const on = [...new Set(shown.flatMap((one) => one.heads.evaluators))];
  choice(host, "on", "Measured on", on.map((name) => [name, DATA.names.evaluators[name].label]), measuredOn(shown[0]));
  const of = [...new Set(shown.flatMap((one) => one.lanes.map((lane) => lane.seed)))];
  choice(host, "of", "Seed", of.map((seed) => [seed, seed]), state.of ?? of[0]);
}

function metrics() {
  return Object.entries(DATA.names.metrics).filter(([name]) => experiments().some((one) => one.metrics.includes(name)));
}

function unlessAll(chosen, all) {
  return chosen.length === all.length ? null : chosen;
}

// Boxes to tick, with two buttons for all and none.
function boxes(host, key, title, options, chosen, change) {
  const group = host.appendChild(document.createElement("fieldset"));
  group.id = `group-${key}`;
  group.appendChild(document.createElement("legend")).textContent = title;
  if (options.length > 2)
    for (const [word, all] of [["all", options.map(([value]) => value)], ["none", []]]) {
      const button = group.appendChild(document.createElement("button"));
      Object.assign(button, { type: "button", id: `${key}-${word}`, textContent: word });
      button.setAttribute("aria-label", `${title}: ${word}`);
      button.addEventListener("click", () => change(all));
    }
  for (const [value, words] of options) {
    const label = group.appendChild(document.createElement("label"));
    const box = label.appendChild(document.createElement("input"));
    Object.assign(box, { type: "checkbox", id: `${key}:${value}`, checked: chosen.includes(value) });
    box.addEventListener("change", () => {
      const now = options.map(([one]) => one).filter((one) => (one === value ? box.checked : chosen.includes(one)));
      change(now);
    });
    label.append(words);
  }
}

function choice(host, key, title, options, value = state[key]) {
  const label = host.appendChild(document.createElement("label"));
  label.className = "choice";
  label.append(title);
  const list = label.appendChild(document.createElement("select"));
  list.id = key;
  for (const [one, words] of options) list.append(new Option(words, one, false, one === value));
  list.addEventListener("change", () => set({ [key]: list.value }));
}
