"use strict";
// Claims with their verdicts, beside the figure; each leads to the curves that it is about.

function renderClaims() {
  const host = document.getElementById("claims");
  host.replaceChildren();
  host.hidden = !DATA.claims.length;
  if (host.hidden) return;
  host.appendChild(document.createElement("h2")).textContent = "Claims";
  const list = host.appendChild(document.createElement("ul"));
  // Those of what is shown come first.
  const order = [...DATA.claims].sort((a, b) => state.experiment.includes(b.experiment) - state.experiment.includes(a.experiment));
  for (const claim of order) {
    const holder = document.createElement("template");
    // Written by captions.py, in which every text of a study's is text.
    holder.innerHTML = claim.html;
    const item = holder.content.firstElementChild, id = `${claim.experiment}/${claim.name}`;
    item.className = `claim ${claim.verdict}`;
    if (state.claim === id) item.setAttribute("aria-current", "true");
    if (experimentNamed(claim.experiment)) {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", id: `claim:${id}`, textContent: `Show in ${claim.experiment}` });
      button.addEventListener("click", () => showClaim(claim, id));
      item.append(button);
    }
    list.append(item);
  }
}

function showClaim(claim, id) {
  const experiment = experimentNamed(claim.experiment);
  const known = experiment.runs.filter((run) => claim.runs.includes(run.name)).map((run) => `${claim.experiment}/${run.name}`);
  const about = claim.evaluators.length ? claim.evaluators : [];
  const shown = [experiment.summarised, ...about.filter((name) => name !== "training")];
  set({
    view: "curves",
    experiment: [claim.experiment],
    run: known.length && known.length < experiment.runs.length ? known : null,
    seed: null,
    evaluator: [...new Set(shown)].filter((name) => experiment.evaluators.includes(name)),
    metric: "default",
    panels: experiment.runs.length > 1 && known.length !== 1 ? "evaluator" : "run",
    loss: about.includes("training") ? "shown" : state.loss,
    claim: id,
  });
  const figure = document.getElementById("figure");
  figure.scrollIntoView();
  figure.focus({ preventScroll: true });
}
