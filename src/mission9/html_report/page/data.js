"use strict";
// The images shown, by number in order of split and path; text from files is only ever set as textContent.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);

function numbers(text, Kind) {
  return new Kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}

const points = {
  count: data.paths.length,
  label: numbers(data.label, Uint16Array),
  split: numbers(data.split, Uint8Array),
  scores: numbers(data.scores, Float32Array),
  neighbours: numbers(data.neighbours, Uint16Array),
  distances: numbers(data.distances, Float32Array),
  sizes: numbers(data.sizes, Uint8Array),
};

const labelOf = (place) => data.labels[points.label[place]];
const splitOf = (place) => data.splits[points.split[place]];
const score = (place, component) => points.scores[place * data.components + component];

function make(kind, settings = {}, ...children) {
  const element = Object.assign(document.createElement(kind), settings);
  element.append(...children);
  return element;
}

function count(number, of, what) {
  const all = number === of ? "" : ` of ${of.toLocaleString("en")}`;
  return `${number.toLocaleString("en")}${all} ${what}`;
}

// Okabe and Ito's colours, which people with any kind of colour vision tell apart; beside them the symbol tells.
// The eighth is black on light ground and white on dark.
const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "ink"];
const SYMBOLS = ["circle", "square", "diamond", "cross", "x", "circle-open", "square-open", "diamond-open"];

const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Lines of a light colour would hardly be seen on white; faces have an outline.
function darker(colour) {
  const parts = colour.match(/[0-9a-f]{2}/gi).map((part) => Math.round(parseInt(part, 16) * 0.72));
  return `rgb(${parts.join(", ")})`;
}

function look(label) {
  const named = COLOURS[(label + Math.floor(label / SYMBOLS.length)) % COLOURS.length];
  const symbol = SYMBOLS[label % SYMBOLS.length], open = symbol.endsWith("open");
  const colour = named === "ink" ? theme("ink") : named;
  return { symbol, open, colour: open && !dark.matches ? darker(colour) : colour };
}
