/* The explorer and the live picture of the landing page. Needs data.js; weights.js is loaded when a reader brings an
   image. A picture is a Float32Array of 3 planes of 32 x 32 pixels in [0, 1]; a band may leave [0, 1]. */
"use strict";
window.hfcExplorer = (() => {
  const data = window.hfcData;
  const folder = document.currentScript.src.replace(/[^/]*$/, "");
  const SIDE = 32, PIXELS = SIDE * SIDE, CLASSES = data.classes.length, FEEDS = ["raw", "max", "mean"];
  const bytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const sum = (values) => values.reduce((one, other) => one + other, 0);

  // ---- the split, as hfclib.split does it
  const COS = Array.from({ length: SIDE }, (_, k) => Math.cos((Math.PI * k) / 16));
  const SIN = Array.from({ length: SIDE }, (_, k) => Math.sin((Math.PI * k) / 16));

  /* Discrete Fourier transform of a 32 x 32 plane, rows then columns. sign: -1 forward; 1 backward, not divided. */
  function transform(re, im, sign) {
    for (const step of [1, SIDE]) {
      const toRe = new Float64Array(PIXELS), toIm = new Float64Array(PIXELS);
      for (let to = 0; to < PIXELS; to++) {
        const k = Math.floor(to / step) % SIDE, start = to - k * step;
        for (let x = 0; x < SIDE; x++) {
          const from = start + x * step, c = COS[(k * x) % SIDE], s = sign * SIN[(k * x) % SIDE];
          toRe[to] += re[from] * c - im[from] * s;
          toIm[to] += re[from] * s + im[from] * c;
        }
      }
      [re, im] = [toRe, toIm];
    }
    return [re, im];
  }

  /* A bin is low when its distance to frequency zero is less than the radius; frequencies run from -16 to 15. */
  function isLow(bin, radius) {
    const [row, column] = [Math.floor(bin / SIDE), bin % SIDE].map((k) => (k < SIDE / 2 ? k : k - SIDE));
    return row * row + column * column < radius * radius;
  }

  /* LFC and HFC of a picture, and the magnitude of each bin summed over the channels. */
  function split(picture, radius) {
    const low = new Float32Array(3 * PIXELS), magnitude = new Float32Array(PIXELS);
    for (let channel = 0; channel < 3; channel++) {
      const plane = picture.subarray(channel * PIXELS, (channel + 1) * PIXELS);
      const [re, im] = transform(plane, new Float64Array(PIXELS), -1);
      for (let bin = 0; bin < PIXELS; bin++) {
        magnitude[bin] += Math.hypot(re[bin], im[bin]);
        if (!isLow(bin, radius)) re[bin] = im[bin] = 0;
      }
      low.set(transform(re, im, 1)[0].map((value) => value / PIXELS), channel * PIXELS);
    }
    return { low, high: picture.map((value, at) => value - low[at]), magnitude };
  }

  /* What a network is fed of a band, as hfclib.transforms.feed_images. */
  function fed(band, feed, addMean) {
    if (feed === "mean" && addMean) return band.map((value, at) => value + data.mean[Math.floor(at / PIXELS)]);
    const most = band.reduce((one, other) => Math.max(one, other), -Infinity);
    return feed === "max" && most > 1e-4 ? band.map((value) => value / most) : band;
  }

  // ---- the live network: vanilla ResNet-18 of width 16, weights as stored (float16), arithmetic in float32
  function half(bits) {
    const exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024;
    return (bits >> 15 ? -1 : 1) * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
  }

  let network; // the promise of its tensors, by name
  const loadNetwork = () => network ??= new Promise((onload, onerror) => {
    const script = { src: `${folder}weights.js`, onload, onerror };
    document.head.append(Object.assign(document.createElement("script"), script));
  }).then(() => {
    const values = Float32Array.from(new Uint16Array(bytes(window.hfcWeights.float16).buffer), half);
    let from = 0;
    return Object.fromEntries(window.hfcWeights.shapes.map(([name, shape]) => {
      const size = shape.reduce((product, length) => product * length);
      return [name, { shape, values: values.subarray(from, (from += size)) }];
    }));
  });

  /* Convolution of square maps {side, values} with odd kernels, padded so that stride 1 keeps the side. */
  function convolve(maps, tensors, name, stride) {
    const { shape: [outputs, inputs, kernel], values: weights } = tensors[`${name}.weight`];
    const pad = (kernel - 1) / 2, wide = maps.side + 2 * pad, side = maps.side / stride;
    const padded = new Float32Array(inputs * wide * wide), values = new Float32Array(outputs * side * side);
    for (let row = 0; row < inputs * maps.side; row++) {
      const plane = Math.floor(row / maps.side), y = (row % maps.side) + pad;
      padded.set(maps.values.subarray(row * maps.side, (row + 1) * maps.side), (plane * wide + y) * wide + pad);
    }
    for (let output = 0; output < outputs; output++) {
      const sums = values.subarray(output * side * side, (output + 1) * side * side);
      sums.fill(tensors[`${name}.bias`].values[output]);
      for (let tap = 0; tap < inputs * kernel * kernel; tap++) {
        const weight = weights[output * inputs * kernel * kernel + tap], column = tap % kernel;
        const row = Math.floor(tap / kernel) % kernel, input = Math.floor(tap / (kernel * kernel));
        for (let y = 0; y < side; y++) {
          let from = (input * wide + y * stride + row) * wide + column;
          for (let to = y * side; to < (y + 1) * side; to++, from += stride) sums[to] += weight * padded[from];
        }
      }
    }
    return { side, values };
  }

  const relu = ({ side, values }) => ({ side, values: values.map((value) => Math.max(value, 0)) });

  /* The ten logits of a picture or a fed band. */
  function logits(tensors, picture) {
    let maps = relu(convolve({ side: SIDE, values: picture }, tensors, "conv1", 1));
    for (let index = 0; index < 8; index++) {
      const block = `blocks.${index}`, stride = index > 1 && index % 2 === 0 ? 2 : 1;
      const inner = relu(convolve(maps, tensors, `${block}.conv1`, stride));
      const outer = convolve(inner, tensors, `${block}.conv2`, 1);
      const projected = `${block}.shortcut.0`;
      const shortcut = `${projected}.weight` in tensors ? convolve(maps, tensors, projected, stride) : maps;
      maps = relu({ side: outer.side, values: outer.values.map((value, at) => value + shortcut.values[at]) });
    }
    const area = maps.side * maps.side, means = [], weights = tensors["fc.weight"].values;
    for (let at = 0; at < maps.values.length; at += area) means.push(sum(maps.values.subarray(at, at + area)) / area);
    return tensors["fc.bias"].values.map((bias, label) =>
      bias + sum(means.map((mean, at) => mean * weights[label * means.length + at])));
  }

  function softmax(values) {
    const powers = Array.from(values, (value) => Math.exp(value - Math.max(...values)));
    return powers.map((power) => power / sum(powers));
  }

  // ---- the explorer
  const form = document.querySelector("#hfc-explorer"), field = form.elements;
  const pixels = bytes(data.pixels), answers = bytes(data.answers);
  const CONDITIONS = 1 + 22 * 5; // the image; at each radius the LFC raw and max, the HFC raw, max and mean
  let own, turn = 0, announcing; // the reader's picture; the latest drawing; the timer of the spoken text
  const say = (text) => { form.querySelector("[role=status]").textContent = text; };
  const parts = Object.fromEntries([...form.querySelectorAll("figure")].map((one) => [one.dataset.part, one]));
  /* Confidences from the image, the LFC and the HFC. */
  function storedAnswers(row, index, radius, feed) {
    const cut = 1 + (radius - 1) * 5;
    return [0, cut + (feed === "max" ? 1 : 0), cut + 2 + FEEDS.indexOf(feed)].map((condition) => {
      const at = ((row * data.images.length + index) * CONDITIONS + condition) * CLASSES;
      return Array.from(answers.subarray(at, at + CLASSES), (byte) => byte / 255);
    });
  }

  function paint(part, picture, description) {
    const context = parts[part].querySelector("canvas").getContext("2d"), image = new ImageData(SIDE, SIDE);
    for (let at = 0; at < 4 * PIXELS; at++) { // bytes are rounded and clipped to 0..255
      image.data[at] = at % 4 === 3 ? 255 : 255 * picture[(at % 4) * PIXELS + (at >> 2)];
    }
    context.putImageData(image, 0, 0);
    parts[part].querySelector("figcaption").textContent = description;
  }

  function paintSpectrum(magnitude, radius) {
    const shown = new Float32Array(3 * PIXELS), top = Math.log1p(10 * Math.max(...magnitude));
    for (let at = 0; at < 3 * PIXELS; at++) { // frequency zero moves to the centre
      const row = (Math.floor(at / SIDE) + SIDE / 2) % SIDE, column = (at + SIDE / 2) % SIDE;
      shown[at] = Math.log1p(10 * magnitude[row * SIDE + column]) / top;
    }
    const inside = [...magnitude.keys()].filter((bin) => isLow(bin, radius)).length;
    paint("spectrum", shown, `Spectrum: ${inside} of 1024 bins within r = ${radius}`);
    parts.spectrum.querySelector("circle").setAttribute("r", radius);
  }

  function bars(row, confidences, truth) {
    const { name, colour } = data.networks[row];
    const best = [...confidences.keys()].sort((one, other) => confidences[other] - confidences[one]).slice(0, 2);
    const lines = best.map((label) => {
      const percent = Math.round(100 * confidences[label]), right = label === truth ? " ✓" : "";
      return `<span class="hfc-line"><span>${data.classes[label]}${right}</span><span>${percent} %</span></span>
        <span class="hfc-bar"><i style="width: ${percent}%"></i></span>`;
    });
    return `<div style="--colour: ${colour}"><b>${name}</b>${lines.join("")}</div>`;
  }

  async function explore() {
    const mine = ++turn, live = field.image.value === "own", index = +field.image.value;
    const radius = +field.radius.value, feed = field.feed.value, from = 3 * PIXELS * index;
    const picture = live ? own : Float32Array.from(pixels.slice(from, from + 3 * PIXELS), (byte) => byte / 255);
    const { low, high, magnitude } = split(picture, radius);
    const given = { image: picture, lfc: fed(low, feed, false), hfc: fed(high, feed, true) };
    const [least, most] = [Math.min(...given.hfc), Math.max(...given.hfc)], stretch = field.stretch.checked;
    const seen = stretch ? given.hfc.map((value) => (value - least) / (most - least || 1)) : given.hfc;
    field.shown.value = radius;
    paint("image", picture, live ? "Your image, 32 × 32" : `Test image ${data.images[index]}`);
    paintSpectrum(magnitude, radius);
    paint("lfc", given.lfc, `LFC at r = ${radius}, as fed`);
    paint("hfc", seen, `HFC at r = ${radius}, ${stretch ? "stretched for the eye" : "as fed"}`);
    for (const radio of field.statistics) radio.disabled = live; // they need a hundred images
    const rows = live ? [0] : [0, field.statistics.value === "batch" ? 2 : 1, 3];
    const truth = live ? -1 : data.labels[index]; // -1: unknown
    const found = live ? [[]] : rows.map((row) => storedAnswers(row, index, radius, feed));
    for (const one of live ? Object.values(given) : []) {
      await new Promise((resume) => { setTimeout(resume); }); // what the reader does meanwhile comes first
      if (mine !== turn) return;
      found[0].push(softmax(logits(await loadNetwork(), one)));
    }
    Object.keys(given).forEach((part, at) => {
      parts[part].querySelector("div").innerHTML = rows.map((row, n) => bars(row, found[n][at], truth)).join("");
    });
    const said = rows.map((row, n) => {
      const [whole, ofLow, ofHigh] = found[n].map((one) => data.classes[one.indexOf(Math.max(...one))]);
      return `${data.networks[row].name}: ${whole} from the image, ${ofLow} from the LFC, ${ofHigh} from the HFC.`;
    });
    said.unshift(live ? "Computed in this page, by the vanilla network only." : `True class: ${data.classes[truth]}.`);
    clearTimeout(announcing); // a slider that moves is not read aloud at every step
    announcing = setTimeout(() => say(said.join(" ")), 150);
  }

  /* The central square of a file's picture, averaged to 32 x 32 pixels, becomes the reader's picture. */
  async function bring(file) {
    const image = await createImageBitmap(file), square = Math.min(image.width, image.height);
    const times = Math.max(1, Math.floor(square / SIDE)), side = times * SIDE, crop = Math.min(side, square);
    const context = Object.assign(document.createElement("canvas"), { width: side, height: side }).getContext("2d");
    context.fillStyle = "white"; // below transparent pixels
    context.fillRect(0, 0, side, side);
    context.drawImage(image, (image.width - crop) >> 1, (image.height - crop) >> 1, crop, crop, 0, 0, side, side);
    const rgba = context.getImageData(0, 0, side, side).data;
    own = new Float32Array(3 * PIXELS);
    for (let at = 0; at < rgba.length; at++) { // the browser's own resizing would alias
      const x = Math.floor(((at >> 2) % side) / times), y = Math.floor((at >> 2) / side / times);
      if (at % 4 < 3) own[(at % 4) * PIXELS + y * SIDE + x] += rgba[at] / 255 / times ** 2;
    }
    if (!field.image.querySelector("[value=own]")) field.image.add(new Option("Your image", "own"));
    field.image.value = "own";
    for (const part of ["image", "lfc", "hfc"]) parts[part].querySelector("div").textContent = "";
  }

  const react = (file) => Promise.resolve(file && bring(file)).then(explore)
    .catch((error) => say(`This did not work: ${error.message ?? "weights.js is missing"}`));

  // ---- the live picture
  const gap = document.querySelector("#hfc-gap"), chosen = gap.elements, svg = gap.querySelector("svg");
  const number = (value) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(2).replace(/^0/, "");
  const signed = (value) => (value < 0 ? "" : "+") + number(value);
  function draw(name, attributes, content = "") {
    const given = Object.entries(attributes).map(([key, value]) => ` ${key}="${value}"`);
    return `<${name}${given.join("")}>${content}</${name}>`;
  }

  function drawGap() {
    const [feed, batch, plain] = ["feed", "statistics", "help"].map((name) => chosen[name].value);
    const points = (variant) => data.radii.map((radius) =>
      data.accuracy[`${variant} ${variant === "batchnorm" ? batch : plain} ${feed} ${radius}`]);
    const right = svg.clientWidth - 56, missing = []; // the right end of the axis, in pixels
    const x = (radius) => 54 + ((right - 68) * (radius - 4)) / 12, y = (value) => 250 - 285 * Math.max(0, value);
    const corners = (list) => data.radii.map((radius, at) => `${x(radius)},${y(list[at][0])}`);
    const [normed, vanilla] = ["batchnorm", "vanilla"].map(points);
    const between = [...corners(normed), ...corners(vanilla).reverse()].join(" ");
    let legend = "", drawn = draw("polygon", { points: between });
    for (const value of [0, 0.2, 0.4, 0.6, 0.8]) {
      drawn += draw("line", { class: "hfc-grid", x1: 40, x2: right, y1: y(value), y2: y(value) });
      drawn += draw("text", { x: 34, y: y(value) + 4, "text-anchor": "end" }, number(value));
    }
    drawn += draw("line", { class: "hfc-chance", x1: 40, x2: right, y1: y(0.1), y2: y(0.1) });
    for (const at of data.radii) drawn += draw("text", { x: x(at), y: 274, "text-anchor": "middle" }, `r = ${at}`);
    drawn += draw("text", { x: right + 6, y: y(0.1) + 4 }, "chance");
    for (const [variant, { name, colour }] of Object.entries(data.variants)) {
      const list = points(variant), main = ["vanilla", "batchnorm"].includes(variant);
      const look = main ? "hfc-main" : "hfc-other";
      if (!list[0]) missing.push(name);
      if (!list[0] || !(main || chosen.others.checked)) continue;
      legend += draw("li", { style: `--colour: ${colour}` }, `${name} (${data.seeds[variant]} seeds)`);
      drawn += draw("polyline", { class: look, points: corners(list).join(" "), stroke: colour });
      list.forEach(([mean, low, high], at) => {
        const x1 = x(data.radii[at]), bar = { class: look, x1, x2: x1, y1: y(low), y2: y(high), stroke: colour };
        drawn += draw("line", bar) + draw("circle", { cx: x1, cy: y(mean), r: main ? 5 : 3, fill: colour });
      });
    }
    svg.innerHTML = drawn;
    gap.querySelector("ul").innerHTML = legend;
    const lead = data.radii.map((radius) => data.gap[`${plain} ${batch} ${feed} ${radius}`]);
    const row = (name, list, format) => `<tr><th scope="row">${name}</th>${list.map(([mean, low, high]) =>
      `<td>${format(mean)}<br><small>[${number(low)}, ${number(high)}]</small></td>`).join("")}</tr>`;
    gap.querySelector("tbody").innerHTML =
      row("BatchNorm", normed, number) + row("Vanilla", vanilla, number) + row("Gap", lead, signed);
    const said = data.radii.map((radius, at) => `${signed(lead[at][0])} at r = ${radius}`).join(", ");
    const unmeasured = chosen.others.checked && missing.length ? ` Not measured this way: ${missing.join(", ")}.` : "";
    gap.querySelector("[role=status]").textContent = `BatchNorm minus vanilla: ${said}.${unmeasured}`;
    gap.querySelectorAll("button").forEach((button) =>
      button.setAttribute("aria-pressed", button.value === `${feed} ${batch} ${plain}`));
  }

  // ---- the page
  data.images.forEach((image, at) => field.image.add(
    new Option(`${image}: ${data.classes[data.labels[at]]}${at < 8 ? " (in the paper)" : ""}`, at)));
  form.hidden = gap.hidden = false;
  form.addEventListener("input", ({ target }) => react(target.files?.[0]));
  form.addEventListener("dragover", (event) => event.preventDefault());
  form.addEventListener("drop", (event) => { event.preventDefault(); react(event.dataTransfer.files[0]); });
  gap.addEventListener("input", drawGap);
  gap.addEventListener("click", ({ target: { name, value } }) => {
    if (name === "preset") [chosen.feed.value, chosen.statistics.value, chosen.help.value] = value.split(" ");
    drawGap();
  });
  window.addEventListener("resize", drawGap);
  react();
  drawGap();
  return { split, fed, logits, loadNetwork };
})();
