/* The explorer of the landing page. Needs data.js; network.js, which holds the worker and its weights, is loaded when a
   reader brings an image. A picture is a Float32Array of 3 planes of 32 x 32 pixels in [0, 1]; a band may leave it. */
"use strict";
window.hfcExplorer = (() => {
  const data = window.hfcData;
  const folder = document.currentScript.src.replace(/[^/]*$/, "");
  const SIDE = 32, PIXELS = SIDE * SIDE, FEEDS = ["raw", "max", "mean"];
  const bytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

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

  // ---- the live network, in a worker: see worker.js
  const waiting = new Map(); // what to do with the answers of the worker, by the number of the message
  let worker, sent = 0;
  const start = () => new Promise((onload, onerror) => {
    const script = { src: `${folder}network.js`, onload, onerror };
    document.head.append(Object.assign(document.createElement("script"), script));
  }).then(() => {
    const { code, ...weights } = window.hfcNetwork;
    const started = new Worker(URL.createObjectURL(new Blob([code]))); // a page of a file may not load a worker's file
    started.onmessage = ({ data: [at, value, fault] }) => {
      const [resolve, reject] = waiting.get(at);
      waiting.delete(at);
      if (fault === undefined) resolve(value);
      else reject(new Error(fault));
    };
    started.postMessage([0, "unpack", weights]);
    return started;
  });
  waiting.set(0, [() => {}, (error) => { throw error; }]);
  async function ask(task, input) {
    const started = await (worker ??= start());
    return new Promise((...settle) => {
      waiting.set(++sent, settle);
      started.postMessage([sent, task, input]);
    });
  }

  /* The class of the largest of ten logits, and its softmax output in whole percent. */
  function answer(logits) {
    const most = Math.max(...logits), sum = logits.reduce((total, value) => total + Math.exp(value - most), 0);
    return [logits.indexOf(most), Math.round(100 / sum)];
  }

  // ---- the explorer
  const form = document.querySelector("#hfc-explorer"), field = form.elements;
  const pixels = bytes(data.pixels), answers = bytes(data.answers);
  const CONDITIONS = 1 + 22 * 5; // the image; at each radius the LFC raw and max, the HFC raw, max and mean
  let own, turn = 0, announcing; // the reader's picture; the latest drawing; the timer of the spoken text
  const parts = Object.fromEntries([...form.querySelectorAll("figure")].map((one) => [one.dataset.part, one]));
  /* Classes and percents from the image, the LFC and the HFC. */
  function storedAnswers(row, index, radius, feed) {
    const cut = 1 + (radius - 1) * 5;
    return [0, cut + (feed === "max" ? 1 : 0), cut + 2 + FEEDS.indexOf(feed)].map((condition) => {
      const at = 2 * ((row * data.images.length + index) * CONDITIONS + condition);
      return answers.subarray(at, at + 2);
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

  function bar(row, [label, percent], truth) {
    const { name, colour } = data.networks[row];
    return `<div style="--colour: ${colour}"><span class="hfc-answer"><span>${name}</span>
      <span><b>${data.classes[label]}</b>${label === truth ? " ✓" : ""} ${percent} %</span></span>
      <span class="hfc-bar"><i style="width: ${percent}%"></i></span></div>`;
  }

  /* Draw what the fields say. A fault is told in place of the answers. */
  async function explore(fault) {
    const mine = ++turn, live = field.image.value === "own", index = +field.image.value;
    const radius = +field.radius.value, feed = field.feed.value, from = 3 * PIXELS * index;
    const picture = live ? own : Float32Array.from(pixels.slice(from, from + 3 * PIXELS), (byte) => byte / 255);
    const { low, high, magnitude } = split(picture, radius);
    const given = { image: picture, lfc: fed(low, feed, false), hfc: fed(high, feed, true) };
    const [least, most] = [Math.min(...given.hfc), Math.max(...given.hfc)], stretch = field.stretch.checked;
    const seen = stretch ? given.hfc.map((value) => (value - least) / (most - least || 1)) : given.hfc;
    field.shown.value = radius;
    paint("image", picture, live ? "Your image, 32 × 32" : `Test image ${data.images[index]}`);
    paint("lfc", given.lfc, `LFC, the blur, r = ${radius}`);
    paint("hfc", seen, `HFC, the rest${feed === "mean" ? ", on grey" : ""}${stretch ? ", stretched" : ""}, r = ${radius}`);
    paintSpectrum(magnitude, radius);
    for (const radio of field.statistics) radio.disabled = live; // they need a hundred images
    const state = `${live ? "" : data.images[index]} ${radius} ${feed} ${field.statistics.value}`;
    for (const button of field.try) button.setAttribute("aria-pressed", button.value === state);
    const tried = form.querySelector("[name=try][aria-pressed=true]");
    form.querySelector(".hfc-tried").textContent = tried?.dataset.says ?? "";
    const rows = live ? [0] : [0, field.statistics.value === "batch" ? 2 : 1, 3];
    const truth = live ? -1 : data.labels[index]; // -1: unknown
    const said = live ? [[]] : rows.map((row) => storedAnswers(row, index, radius, feed));
    if (fault || live) say(fault ?? "Computing in this page …", true);
    for (const input of live ? Object.values(given) : []) {
      said[0].push(answer(await ask("logits", input)));
      if (mine !== turn) return;
    }
    Object.keys(given).forEach((part, at) => {
      parts[part].querySelector("div").innerHTML = rows.map((row, n) => bar(row, said[n][at], truth)).join("");
    });
    const spoken = rows.map((row, n) => {
      const [whole, ofLow, ofHigh] = said[n].map(([label]) => data.classes[label]);
      return `${data.networks[row].name}: ${whole} from the image, ${ofLow} from the LFC, ${ofHigh} from the HFC.`;
    });
    spoken.unshift(live ? "Computed in this page, by the vanilla network only." : `True class: ${data.classes[truth]}.`);
    say(fault ?? spoken.join(" "), live || fault);
  }

  /* Tell a text when the fields have rested; one that repeats what is shown is for screen readers only. */
  function say(text, shown) {
    clearTimeout(announcing);
    announcing = setTimeout(() => {
      const status = form.querySelector("[role=status]");
      status.textContent = text;
      status.classList.toggle("hfc-unseen", !shown);
    }, 150);
  }

  /* Draw what the fields say; a reader's file, if there is one, takes the place of the picture when it has been read. */
  async function react(file) {
    const told = (error) => `This did not work: ${error.message ?? "network.js is missing"}`;
    let fault;
    if (file) {
      try {
        own = await ask("picture", file);
        if (!field.image.querySelector("[value=own]")) field.image.add(new Option("Your image", "own"));
        field.image.value = "own";
        for (const part of ["image", "lfc", "hfc"]) parts[part].querySelector("div").textContent = "";
      } catch (error) {
        fault = told(error);
      }
    }
    explore(fault).catch((error) => say(told(error), true));
  }

  // ---- the page
  data.images.forEach((image, at) => field.image.add(
    new Option(`${data.classes[data.labels[at]]}, image ${image}${at < 8 ? " (in the paper)" : ""}`, at)));
  for (const text of form.querySelectorAll(".hfc-classes")) text.textContent = data.classes.join(", ");
  form.hidden = false;
  form.addEventListener("input", ({ target }) => react(target.files?.[0]));
  form.addEventListener("click", ({ target }) => {
    if (target.name === "more") target.setAttribute("aria-expanded", !(form.querySelector(".hfc-more").hidden ^= true));
    if (target.name !== "try") return;
    const [image, ...others] = target.value.split(" ");
    field.image.value = data.images.indexOf(+image);
    [field.radius.value, field.feed.value, field.statistics.value] = others;
    react();
  });
  form.addEventListener("dragover", (event) => event.preventDefault());
  form.addEventListener("drop", (event) => { event.preventDefault(); react(event.dataTransfer.files[0]); });
  react();
  return { split, fed, answer, logits: (picture) => ask("logits", picture) };
})();
