// Thumbnails, cut from their sheets; and what each label looks like on the map.

const sheets = data.sheets.map((sheet) => {
  const bytes = Uint8Array.from(atob(sheet), (c) => c.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
});

// An element that shows an image, `scale` times as large as it is stored; an empty place where there is none.
function thumbnail(place, scale = 1) {
  const frame = make("span", { className: "thumb" });
  fillThumbnail(frame, place, scale);
  return frame;
}

function fillThumbnail(frame, place, scale = 1) {
  const [width, height] = points.sizes.subarray(2 * place, 2 * place + 2);
  if (!width) {
    frame.append(make("span", { className: "muted", textContent: "–", title: "no thumbnail" }));
    return;
  }
  const side = data.side * scale, across = data.across, inSheet = place % (across * across);
  const picture = make("i", { ariaHidden: "true" }) /* the label and the path beside it say what it is */;
  Object.assign(picture.style, {
    width: `${width * scale}px`,
    height: `${height * scale}px`,
    backgroundImage: `url("${sheets[Math.floor(place / (across * across))]}")`,
    backgroundSize: `${across * side}px auto`,
    backgroundPosition: `-${(inSheet % across) * side}px -${Math.floor(inSheet / across) * side}px`,
  });
  frame.append(picture);
}

function describe(place, more) {
  const path = make("span", { className: "path muted", textContent: data.paths[place] });
  const facts = [data.splits.length > 1 ? splitOf(place) : "", more].filter(Boolean).join(", ");
  const line = facts ? [make("span", { className: "muted", textContent: facts })] : [];
  return make("span", { className: "text" }, make("b", { textContent: labelOf(place) }), ...line, path);
}

const OUTLINES = {
  circle: "M8 2.5a5.5 5.5 0 1 0 .01 0z",
  square: "M3 3h10v10H3z",
  diamond: "M8 1l7 7-7 7-7-7z",
  cross: "M6 2h4v4h4v4h-4v4H6v-4H2V6h4z",
  x: "M4.8 2L8 5.2 11.2 2 14 4.8 10.8 8 14 11.2 11.2 14 8 10.8 4.8 14 2 11.2 5.2 8 2 4.8z",
};

function glyph(label) {
  const { symbol, colour, open } = look(label), shape = symbol.split("-")[0];
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg"), path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "glyph");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", OUTLINES[shape]);
  path.setAttribute("fill", open ? "none" : colour);
  path.setAttribute("stroke", open ? colour : theme("outline"));
  path.setAttribute("stroke-width", open ? 2 : 0.8);
  svg.append(path);
  return svg;
}

// The panel at the pointer, with whatever it is to show.
function showTip(event, ...children) {
  const tip = $("tip"), gap = 16;
  tip.replaceChildren(...children);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const x = event.clientX ?? innerWidth / 2, y = event.clientY ?? innerHeight / 2;
  const left = x + gap + width < innerWidth ? x + gap : x - gap - width;
  tip.style.left = `${Math.max(4, Math.min(left, innerWidth - width - 4))}px`;
  tip.style.top = `${Math.max(4, Math.min(y + gap, innerHeight - height - 4))}px`;
}

function hideTip() {
  $("tip").hidden = true;
}
