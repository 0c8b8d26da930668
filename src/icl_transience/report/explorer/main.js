"use strict";
// Puts the parts together, and says what the picture leaves out.

function render() {
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  removePanels();
  renderViews();
  renderControls();
  renderClaims();
  document.getElementById("heading").textContent = experiments().map((one) => one.question || one.name).join(" · ");
  const host = document.getElementById("picture");
  host.replaceChildren();
  if (experiments().length) ({ curves: renderCurves, plane: renderPlane, heads: renderHeads })[state.view](host);
  else host.textContent = DATA.experiments.length ? "Nothing is chosen: choose an experiment." : "No experiment of this study has tables that can be shown; below stands why.";
  renderLeftOut();
}

function renderViews() {
  const host = document.querySelector("header nav"), focused = document.activeElement?.id;
  host.replaceChildren();
  for (const [key, title] of DATA.experiments.length ? Object.entries(VIEWS) : []) {
    if (key === "heads" && !DATA.experiments.some((one) => one.heads)) continue;
    const button = host.appendChild(document.createElement("button"));
    Object.assign(button, { type: "button", id: `view-${key}`, textContent: title });
    button.setAttribute("aria-pressed", String(state.view === key));
    button.addEventListener("click", () => set({ view: key }));
  }
  if (focused?.startsWith("view-")) document.getElementById(focused)?.focus();
}

function renderLeftOut() {
  const host = document.getElementById("left-out");
  host.replaceChildren();
  host.appendChild(document.createElement("h3")).textContent = "How to read it, and what it leaves out";
  const list = host.appendChild(document.createElement("ul"));
  for (const text of [...(DATA.experiments.length ? ofTheView() : []), ...ofTheExperiments()]) list.appendChild(document.createElement("li")).textContent = text;
}

function ofTheView() {
  const said = [], confidence = [...new Set(experiments().map((one) => `${100 * one.confidence}%`))].join(", ");
  if (state.view === "curves" && state.show === "mean")
    said.push(`A line is the mean over the chosen seeds that did not diverge, at the points that all of them have; the band is Student's t interval of that mean (${confidence}), drawn from ${DATA.names.band_from} seeds on. Where the training loss or another loss is drawn on a logarithmic axis, the band is of the mean logarithm.`);
  if (state.view === "curves") said.push("Dotted: what guessing gives. All panels share the pointer; drag to enlarge, double-click to see all. The training loss is the mean since the snapshot before.");
  if (state.view === "plane") said.push("A path is the mean over the chosen seeds, or one seed; the disc on it is where it is at the chosen time. Dotted: what guessing gives.");
  if (state.view === "heads") said.push("One seed at a time, since heads of seeds do not correspond. Snapshots stand at equal distances. Dotted line: this seed's peak. Composition, attention patterns, MLPs and embeddings are in the tables of circuits alone.");
  if (state.x === "log" && state.view !== "plane") said.push("A logarithmic axis has no place for the snapshot at 0.");
  said.push(`Values are those of the tables, to ${DATA.digits} digits; standard errors of single points are in curves.csv alone.`);
  return said;
}

function ofTheExperiments() {
  const said = [];
  for (const experiment of experiments()) {
    const diverged = experiment.lanes.filter((lane) => lane.outcome === "diverged");
    if (diverged.length) {
      const some = diverged.slice(0, 8).map((lane) => `${experiment.runs[lane.run].name}, seed ${lane.seed}`).join("; ");
      said.push(`${experiment.name}: ${diverged.length} of ${experiment.lanes.length} lanes diverged and are in no mean: ${some}${diverged.length > 8 ? "; …" : ""}.`);
    }
    said.push(...experiment.notes.map((note) => `${experiment.name}: ${note}`));
  }
  said.push(...Object.entries(DATA.absent).map(([name, why]) => `Not in this page: ${name} (${why}).`));
  return said;
}

async function start() {
  await unpack();
  document.querySelector("h1").textContent = `Study ${DATA.study}`;
  document.getElementById("description").textContent = DATA.description;
  readFragment();
  render();
  window.addEventListener("hashchange", () => {
    readFragment();
    render();
  });
  let width = innerWidth;
  window.addEventListener("resize", () => {
    if (width !== innerWidth) render();
    width = innerWidth;
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
  document.documentElement.dataset.ready = performance.now().toFixed(0);
}

start();
