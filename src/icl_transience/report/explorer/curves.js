"use strict";
// The view of curves: a panel a run or an evaluator, the training loss under it, all with one cursor.

function renderCurves(host) {
  const panels = panelsToDraw();
  if (!panels.length) {
    host.textContent = "Nothing is chosen: choose a run and an evaluator.";
    return;
  }
  legend(host, panels);
  const grid = host.appendChild(document.createElement("div"));
  grid.className = "grid";
  const room = host.clientWidth, span = spanOf(panels);
  // With the training loss every other panel is of it.
  const columns = Math.max(1, Math.min(Math.floor(room / 380), panels.filter((one) => !one.loss).length || panels.length));
  grid.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  grid.panelWidth = Math.floor((room - 12 * (columns - 1)) / columns);
  if (state.panels === "run" && state.loss === "shown") {
    for (let i = 0; i < panels.length; ) {
      const cell = grid.appendChild(document.createElement("div"));
      cell.panelWidth = grid.panelWidth;
      if (!panels[i].loss) drawPanel(cell, panels[i++], span);
      if (panels[i]?.loss) drawPanel(cell, panels[i++], span);
    }
  } else for (const panel of panels) drawPanel(grid, panel, span);
}

function legend(host, panels) {
  const looks = new Map(panels.flatMap((panel) => panel.lines).map((line) => [line.colour + line.label.split(", seed ")[0], line]));
  const list = host.appendChild(document.createElement("ul"));
  list.className = "legend";
  for (const line of looks.values()) {
    const item = list.appendChild(document.createElement("li"));
    const swatch = item.appendChild(document.createElement("span"));
    swatch.className = line.dash ? "swatch dashed" : "swatch";
    swatch.style.borderColor = line.colour;
    item.append(line.label.split(", seed ")[0]);
  }
}
