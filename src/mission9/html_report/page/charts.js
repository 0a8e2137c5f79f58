// The charts below the map; and the start of everything.

// What is not a tag to plotly, which takes some of HTML in its texts.
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

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
    xaxis: { ...grid, title: { text: "component" }, showgrid: false, tickformat: "d" },
    yaxis: { ...grid, title: { text: "share of the variance" }, tickformat: ".0%", range: [0, 1.02] },
    legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0 },
    hoverlabel: { bgcolor: theme("surface"), bordercolor: theme("muted"), font: { color: theme("ink") } },
    margin: { l: 56, r: 12, t: 32, b: 44 },
  });
  return Plotly.react($("scree"), [each, all], layout, QUIET);
}

// Few mistakes among many images must be seen, so 0 has a colour of its own and the rest begins well apart from it.
function shades() {
  return dark.matches
    ? [[0, theme("empty")], [0.001, "#3b4a63"], [1, "#ffe9a8"]]
    : [[0, theme("empty")], [0.001, "#b9cbe4"], [1, "#0b2a5b"]];
}

let matrixIsNew = true;

async function drawMatrix() {
  if (!data.matrix) return;
  const { labels, cells, judged } = data.matrix, size = labels.length;
  const images = Array.from({ length: size }, () => new Uint32Array(size));
  for (const [row, column, number] of cells) images[row][column] = number;
  const shares = images.map((row, n) => Array.from(row, (number) => number / (judged[n] || 1)));
  const named = size <= 60 && innerWidth >= 900;
  const short = labels.map((text) => plain(text.length > 24 ? `${text.slice(0, 23)}…` : text));
  const axis = (text) => ({
    title: { text }, tickmode: "array", tickvals: named ? [...labels.keys()] : [], ticktext: named ? short : [],
    showgrid: false, zeroline: false, fixedrange: true, automargin: true, tickfont: { size: size > 30 ? 10.5 : 12 },
  });
  const layout = chartLayout({
    xaxis: { ...axis("label of the nearest neighbour"), tickangle: -90 },
    yaxis: { ...axis("label"), autorange: "reversed" },
    margin: { l: 40, r: 12, t: 12, b: 44 },
  });
  const colorbar = { title: { text: "share", side: "top" }, tickformat: ".0%", thickness: 12, outlinewidth: 0 };
  const heat = {
    type: "heatmap", z: shares, zmin: 0, zmax: 1, colorscale: shades(), hoverinfo: "none", xgap: 1, ygap: 1,
    showscale: innerWidth >= 900, colorbar,
  };
  await Plotly.react($("matrix"), [heat], layout, QUIET);
  if (matrixIsNew) listenMatrix(labels, images, judged);
  matrixIsNew = false;
}

function listenMatrix(labels, images, judged) {
  $("matrix").on("plotly_hover", (event) => {
    const { x, y } = event.points[0];
    const told = `${images[y][x]} of ${judged[y]} images are nearest to one of ${labels[x]}`;
    const text = make("span", { className: "text" }, make("b", { textContent: labels[y] }), make("span", { textContent: told }));
    showTip(event.event ?? {}, text);
  });
  $("matrix").on("plotly_unhover", hideTip);
}

async function start() {
  for (const frame of document.querySelectorAll("[data-thumb]")) fillThumbnail(frame, Number(frame.dataset.thumb));
  fillControls();
  fillLabels();
  bindControls();
  addEventListener("scroll", hideTip, { passive: true });
  dark.addEventListener("change", () => { fillLabels(); drawMap(); drawScree(); drawMatrix(); });
  await update();
  await drawScree();
  await drawMatrix();
  document.body.dataset.ready = "true";
}

start();
