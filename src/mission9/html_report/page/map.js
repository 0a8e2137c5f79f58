// The map: which points are on it, where they lie, and what happens when they are pointed at.

const state = {
  split: null,
  query: "",
  labels: new Set(data.labels.keys()),
  spatial: false,
  axes: [0, 1, 2].map((axis) => Math.min(axis, data.components - 1)),
  chosen: null,
};

const searched = data.paths.map((path, place) => `${path}\n${labelOf(place)}`.toLowerCase());

function visible() {
  const wanted = state.query.trim().toLowerCase();
  return Array.from(points.label.keys()).filter(
    (place) =>
      (state.split === null || points.split[place] === state.split) &&
      state.labels.has(points.label[place]) &&
      (!wanted || searched[place].includes(wanted)),
  );
}

function component(number) {
  const share = data.variance[number];
  return `PC ${number + 1}` + (share === undefined ? "" : ` (${(100 * share).toFixed(1)} %)`);
}

function coordinates(places) {
  const names = state.spatial ? ["x", "y", "z"] : ["x", "y"];
  return Object.fromEntries(names.map((name, n) => [name, places.map((place) => score(place, state.axes[n]))]));
}

function markers(places) {
  const looks = data.labels.map((_, label) => look(label));
  const of = places.map((place) => looks[points.label[place]]);
  const large = places.map((place) => data.splits.length > 1 && splitOf(place) !== "Training");
  const color = of.map((each) => each.colour), outline = theme("outline");
  const width = of.map((each) => (each.open ? 1.5 : 0.5));
  const [small, big] = state.spatial ? [4, 6] : innerWidth < 600 ? [5, 8] : [7, 10];
  return {
    color,
    symbol: of.map((each) => each.symbol),
    size: large.map((is) => (is ? big : small)),
    opacity: state.spatial ? 1 : state.chosen === null ? 0.85 : 0.4, // so that the rings stand out
    line: { color: of.map((each, n) => (each.open || state.spatial ? color[n] : outline)), width: state.spatial ? 1 : width },
  };
}

function rings() {
  const places = state.chosen === null ? [] : [state.chosen, ...neighboursOf(state.chosen).map(([place]) => place)];
  const size = state.spatial ? [16, 11] : [20, 15];
  return {
    ...coordinates(places),
    type: state.spatial ? "scatter3d" : "scatter",
    mode: "markers",
    hoverinfo: "skip",
    marker: {
      symbol: "circle-open",
      color: theme("ink"),
      opacity: 1,
      size: places.map((_, n) => size[n ? 1 : 0]),
      line: { color: theme("ink"), width: 3 },
    },
  };
}

function axis(number, more) {
  const line = theme("line");
  return {
    title: { text: component(number), standoff: 10 },
    gridcolor: line,
    zerolinecolor: line,
    linecolor: line,
    ...more,
  };
}

function mapLayout() {
  const [x, y, z] = state.axes;
  const common = {
    paper_bgcolor: theme("surface"),
    plot_bgcolor: theme("surface"),
    font: { family: "system-ui, sans-serif", size: 13, color: theme("muted") },
    showlegend: false,
    hovermode: "closest",
    uirevision: `${state.spatial} ${state.axes}`,
  };
  if (!state.spatial) {
    const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
    return { ...common, dragmode, margin: { l: 56, r: 16, t: 16, b: 56 }, xaxis: axis(x), yaxis: axis(y) };
  }
  const scene = [x, y, z].map((number) => axis(number, { backgroundcolor: theme("surface"), showspikes: false }));
  return {
    ...common,
    margin: { l: 0, r: 0, t: 0, b: 0 },
    scene: { xaxis: scene[0], yaxis: scene[1], zaxis: scene[2], aspectmode: "cube" },
  };
}

const QUIET = { displayModeBar: false, displaylogo: false, responsive: true, doubleClick: "reset" };

let onMap = []; // the places of the points, in the order in which plotly has them
let drawn = null; // how it was drawn last: 2-D or 3-D

let drawing = Promise.resolve();

// One drawing at a time, also where the next is asked for before the last is done.
function drawMap() {
  drawing = drawing.catch(() => {}).then(drawNow);
  return drawing;
}

async function drawNow() {
  const plot = $("plot");
  if (drawn !== null && drawn !== state.spatial) Plotly.purge(plot);
  const isNew = drawn !== state.spatial;
  drawn = state.spatial;
  onMap = visible();
  const cloud = {
    ...coordinates(onMap),
    type: state.spatial ? "scatter3d" : "scatter",
    mode: "markers",
    hoverinfo: "none",
    marker: markers(onMap),
  };
  $("count").textContent = `${count(onMap.length, points.count, "images")} on the map`;
  await Plotly.react(plot, [cloud, rings()], mapLayout(), QUIET);
  if (isNew) listen(plot);
}

function listen(plot) {
  const pointed = (event) => event.points.find((point) => point.curveNumber === 0);
  plot.on("plotly_hover", (event) => {
    const point = pointed(event);
    if (!point) return;
    const place = onMap[point.pointNumber];
    showTip(event.event ?? {}, thumbnail(place, 2), describe(place));
  });
  plot.on("plotly_unhover", hideTip);
  plot.on("plotly_click", (event) => {
    const point = pointed(event);
    if (point) choose(onMap[point.pointNumber]);
  });
}

function zoom(factor) {
  const layout = $("plot")._fullLayout;
  if (state.spatial) {
    const { eye } = layout.scene.camera ?? { eye: { x: 1.25, y: 1.25, z: 1.25 } };
    const nearer = Object.fromEntries(Object.entries(eye).map(([name, value]) => [name, value * factor]));
    return Plotly.relayout($("plot"), { "scene.camera.eye": nearer });
  }
  const ranges = ["xaxis", "yaxis"].map((name) => {
    const [low, high] = layout[name].range, middle = (low + high) / 2, half = ((high - low) / 2) * factor;
    return [`${name}.range`, [middle - half, middle + half]];
  });
  return Plotly.relayout($("plot"), Object.fromEntries(ranges));
}

function resetView() {
  const eye = { x: 1.25, y: 1.25, z: 1.25 };
  const view = { "xaxis.autorange": true, "yaxis.autorange": true };
  return Plotly.relayout($("plot"), state.spatial ? { "scene.camera": { eye } } : view);
}
