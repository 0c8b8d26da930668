"use strict";
// Which lines a panel has: of runs or evaluators, each the mean over seeds with its band, or every seed.

// {label, colour, dash, xs, ys, low, high}
function linesOf(experiment, run, evaluator, looks) {
  const found = lanesOf(experiment, run).map((lane) => [lane, curve(experiment, lane, evaluator, state.metric)]);
  let curves = found.filter(([, one]) => one);
  if (evaluator.includes("|")) curves = curves.filter(([, one]) => one.ys.some((y) => y !== null));
  if (!curves.length) return [];
  if (state.show === "seeds")
    return curves.map(([lane, one]) => {
      const { seed, outcome } = experiment.lanes[lane];
      return { ...looks, ...one, label: `${looks.label}, seed ${seed}${outcome === "diverged" ? " (diverged)" : ""}` };
    });
  const logarithmic = metricOf(evaluator, state.metric) === "loss" && isLogarithmic(evaluator);
  const mean = meanOf(curves.map(([, one]) => one), experiment.t, logarithmic);
  return mean.n ? [{ ...looks, ...mean }] : [];
}

function isLogarithmic(evaluator) {
  if (evaluator === "training") return true;
  return state.y === "log" || (state.y === "figures" && metricOf(evaluator, state.metric) === "loss");
}

function looksOfEvaluator(name) {
  const looks = DATA.names.evaluators[name];
  return { label: looks.label, colour: colour(looks.colour), dash: looks.dash || name.includes("@") };
}

function looksOfRun(run) {
  return { label: run.name, colour: colour(run.colour) };
}

// {title, words of its axis, lines, evaluator, chance: [levels], loss: whether it is one of the training loss}
function panelsToDraw() {
  return experiments().flatMap((experiment) => {
    const runs = runsOf(experiment), shown = shownEvaluators(experiment);
    const several = experiments().length > 1 ? `${experiment.name}: ` : "";
    const panels = state.panels === "run" ? panelsOfRuns(experiment, runs, shown) : panelsOfEvaluators(experiment, runs, shown);
    for (const panel of panels) panel.title = several + panel.title;
    return panels;
  });
}

function panelsOfRuns(experiment, runs, shown) {
  return runs.flatMap((run) => {
    const lines = shown.flatMap((name) => linesOf(experiment, run, name, looksOfEvaluator(name)));
    const panels = shown.length ? [{ title: run.name, lines, evaluator: shown[0], chance: chances(run, shown), words: wordsOf(shown) }] : [];
    if (state.loss === "shown") {
      const training = linesOf(experiment, run, "training", looksOfEvaluator("training"));
      panels.push({ title: `${run.name}, training loss`, lines: training, evaluator: "training", chance: [], words: "loss", loss: true });
    }
    return panels;
  });
}

function panelsOfEvaluators(experiment, runs, shown) {
  const panels = shown.map((name) => ({
    title: DATA.names.evaluators[name].label,
    lines: runs.flatMap((run) => linesOf(experiment, run, name, looksOfRun(run))),
    evaluator: name,
    chance: runs.length ? chances(runs[0], [name]) : [],
    words: wordsOf([name]),
  }));
  if (state.loss === "shown") {
    const training = runs.flatMap((run) => linesOf(experiment, run, "training", looksOfRun(run)));
    panels.push({ title: "training loss", lines: training, evaluator: "training", chance: [], words: "loss", loss: true });
  }
  return panels;
}

// What the vertical axis is of: in-context accuracies and accuracies are both accuracies.
function wordsOf(shown) {
  const found = [...new Set(shown.map((name) => DATA.names.metrics[metricOf(name, state.metric)]))];
  return found.length === 1 ? found[0] : "accuracy";
}

function chances(run, shown) {
  const its = shown.filter((name) => metricOf(name, state.metric) === metricOf(name, "default"));
  return [...new Set(its.map((name) => run.chance[name]).filter((level) => level !== undefined))];
}
