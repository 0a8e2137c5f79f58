// The charts below the map; and the start of everything.

function chartLayout(more) {
  return {
    paper_bgcolor: theme("surface"),
    plot_bgcolor: theme("surface"),
    font: { family: "system-ui, sans-serif", size: 13, color: theme("muted") },
    margin: { l: 56, r: 12, t: 12, b: 44 },
    dragmode: false,
    ...more,
  };
}

function drawScree() {
  let sum = 0;
  const numbers = data.variance.map((_, n) => n + 1), sums = data.variance.map((share) => (sum += share));
  const hovertemplate = "%{x}: %{y:.1%}<extra></extra>";
  const each = { type: "bar", name: "each", x: numbers, y: data.variance, marker: { color: theme("bar") }, hovertemplate };
  const line = { color: theme("ink"), width: 2 };
  const mode = numbers.length > 1 ? "lines" : "markers";
  const all = { type: "scatter", mode, name: "cumulated", x: numbers, y: sums, line, marker: line, hovertemplate };
  const grid = { gridcolor: theme("line"), zerolinecolor: theme("line"), fixedrange: true };
  const layout = chartLayout({
    xaxis: { ...grid, title: { text: "component" }, showgrid: false, tickformat: "d", ...(numbers.length > 10 ? {} : { dtick: 1 }) },
    yaxis: { ...grid, title: { text: "share of the variance" }, tickformat: ".0%", range: [0, 1.02] },
    legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0 },
    hoverlabel: { bgcolor: theme("surface"), bordercolor: theme("muted"), font: { color: theme("ink") } },
    margin: { l: 56, r: 12, t: 32, b: 44 },
  });
  return Plotly.react($("scree"), [each, all], layout, QUIET);
}

const SVG = "http://www.w3.org/2000/svg";

function draw(kind, attributes, text) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// Drawn here, since plotly's own would need styles that the page's policy forbids. A cell's share of its row tells its
// shade; the faintest is well apart from none, so that few mistakes among many images are seen.
function drawMatrix() {
  if (!data.matrix) return;
  const { labels, cells, judged } = data.matrix, frame = $("matrix");
  const wide = frame.clientWidth, named = wide >= 640 && labels.length <= 60, room = named ? 150 : 0;
  const side = Math.min(Math.min(wide - room, 720) / labels.length, 48), all = side * labels.length;
  const svg = draw("svg", { width: room + all, height: room + all, "aria-hidden": "true" });
  svg.append(draw("rect", { x: room, y: 0, width: all, height: all, class: "none" }));
  for (const [row, column, number] of cells) {
    const gap = side > 6 ? 1 : 0, at = { x: room + column * side, y: row * side, width: side - gap, height: side - gap };
    const cell = draw("rect", { ...at, class: row === column ? "right" : "wrong" });
    cell.setAttribute("fill-opacity", 0.3 + (0.7 * number) / judged[row]);
    cell.dataset.told = `${number} of ${judged[row]} are nearest to ${row === column ? "one of the same" : labels[column]}`;
    cell.dataset.label = labels[row];
    svg.append(cell);
  }
  if (named) svg.append(...labels.flatMap((text, n) => nameOf(text, (n + 0.65) * side, room, all, side)));
  frame.replaceChildren(svg);
}

function nameOf(text, at, room, all, side) {
  const short = text.length > 20 ? `${text.slice(0, 19)}…` : text, size = Math.min(12, side * 0.9);
  const row = { x: room - 6, y: at, "text-anchor": "end", "font-size": size };
  const column = { "text-anchor": "end", "font-size": size, transform: `translate(${room + at} ${all + 6}) rotate(-90)` };
  return [draw("text", row, short), draw("text", column, short)];
}

function pointAtMatrix(event) {
  const { label, told } = event.target.dataset;
  if (!told) return hideTip();
  const lines = [make("b", { textContent: label }), make("span", { textContent: told })];
  return showTip(event, make("span", { className: "text" }, ...lines));
}

async function start() {
  for (const frame of document.querySelectorAll("[data-thumb]")) fillThumbnail(frame, Number(frame.dataset.thumb));
  fillControls();
  fillLabels();
  $("filter").open = innerWidth > 900;
  bindControls();
  addEventListener("scroll", hideTip, { passive: true });
  if (data.matrix) {
    drawMatrix();
    new ResizeObserver(drawMatrix).observe($("matrix"));
    $("matrix").addEventListener("pointermove", pointAtMatrix);
    $("matrix").addEventListener("pointerleave", hideTip);
  }
  dark.addEventListener("change", () => { fillLabels(); drawMap(); drawScree(); });
  await update();
  await drawScree();
  document.body.dataset.ready = "true";
}

start();
