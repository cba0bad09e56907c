/* BatchNorm's lead on the landing page, a chart and a table that follow the way to measure. Needs data.js. */
"use strict";
(() => {
  const data = window.hfcData;
  const gap = document.querySelector("#hfc-gap"), chosen = gap.elements, svg = gap.querySelector("svg");
  function number(value) {
    const digits = Math.abs(value).toFixed(2).replace(/^0/, "");
    return (value < 0 && digits !== ".00" ? "−" : "") + digits;
  }
  const signed = (value) => number(value).replace(/^(?!−|\.00$)/, "+");
  function draw(name, attributes, content = "") {
    const given = Object.entries(attributes).map(([key, value]) => ` ${key}="${value}"`);
    return `<${name}${given.join("")}>${content}</${name}>`;
  }

  // A way to measure: the feed, BatchNorm's statistics, and those of the other networks.
  const AUTHORS = "max batch running";
  let way = AUTHORS, sliding;

  /* [mean, low, high] at each radius: of a network's accuracy, and of BatchNorm's lead over vanilla. */
  function accuracies(variant, [feed, batch, plain]) {
    const statistics = variant === "batchnorm" ? batch : plain;
    return data.radii.map((radius) => data.accuracy[`${variant} ${statistics} ${feed} ${radius}`]);
  }
  const leads = ([feed, batch, plain]) => data.radii.map((radius) => data.gap[`${plain} ${batch} ${feed} ${radius}`]);

  /* The chart, when a share of the move from the last way to measure to this one is over. */
  function drawChart(last, share) {
    const right = svg.clientWidth - 56; // the right end of the axis, in pixels
    const x = (radius) => 54 + ((right - 68) * (radius - 4)) / 12, y = (value) => 250 - 285 * Math.max(0, value);
    const corners = (list) => data.radii.map((radius, at) => `${x(radius)},${y(list[at][0])}`);
    const now = (variant) => {
      const [from, to] = [last, way].map((one) => accuracies(variant, one.split(" ")));
      if (!from[0] || !to[0]) return to;
      return to.map((values, at) => values.map((value, end) => share * value + (1 - share) * from[at][end]));
    };
    const between = [...corners(now("batchnorm")), ...corners(now("vanilla")).reverse()].join(" ");
    let legend = "", drawn = draw("polygon", { points: between });
    for (const value of [0, 0.2, 0.4, 0.6, 0.8]) {
      drawn += draw("line", { class: "hfc-grid", x1: 40, x2: right, y1: y(value), y2: y(value) });
      drawn += draw("text", { x: 34, y: y(value) + 4, "text-anchor": "end" }, number(value));
    }
    drawn += draw("line", { class: "hfc-chance", x1: 40, x2: right, y1: y(0.1), y2: y(0.1) });
    for (const at of data.radii) drawn += draw("text", { x: x(at), y: 274, "text-anchor": "middle" }, `r = ${at}`);
    drawn += draw("text", { x: right + 6, y: y(0.1) + 4 }, "chance");
    for (const [variant, { name, colour }] of Object.entries(data.variants)) {
      const list = now(variant), main = ["vanilla", "batchnorm"].includes(variant);
      const look = main ? "hfc-main" : "hfc-other", style = `--colour: ${colour}`;
      if (!list[0] || !(main || chosen.others.checked)) continue;
      legend += draw("li", { style }, `${name} (${data.seeds[variant]} seeds)`);
      if (variant === "vanilla" && way !== AUTHORS) {
        const points = corners(accuracies(variant, AUTHORS.split(" "))).join(" ");
        drawn += draw("polyline", { class: "hfc-before", points, stroke: colour });
        legend += draw("li", { style, class: "hfc-before" }, `${name}, as the authors measure it`);
      }
      drawn += draw("polyline", { class: look, points: corners(list).join(" "), stroke: colour });
      list.forEach(([mean, low, high], at) => {
        const x1 = x(data.radii[at]), bar = { class: look, x1, x2: x1, y1: y(low), y2: y(high), stroke: colour };
        drawn += draw("line", bar) + draw("circle", { cx: x1, cy: y(mean), r: main ? 5 : 3, fill: colour });
      });
    }
    svg.setAttribute("viewBox", `0 0 ${svg.clientWidth} 280`); // for paper, which has another width
    svg.innerHTML = drawn;
    gap.querySelector("ul").innerHTML = legend;
  }

  /* Measure in the way that the fields say: the lines move there, the numbers stand at once. */
  function measure() {
    const last = way, started = performance.now();
    way = ["feed", "statistics", "help"].map((name) => chosen[name].value).join(" ");
    const kinds = (one) => [accuracies("vanilla", one), accuracies("batchnorm", one), leads(one)];
    const [vanilla, normed, lead] = kinds(way.split(" "));
    const row = (name, list, format) => `<tr><th scope="row">${name}</th>${list.map(([mean, low, high]) =>
      `<td>${format(mean)}<br><small>[${number(low)}, ${number(high)}]</small></td>`).join("")}</tr>`;
    gap.querySelector("tbody").innerHTML =
      row("BatchNorm", normed, number) + row("Vanilla", vanilla, number) + row("Lead", lead, signed);
    const [ofVanilla, ofNormed, ofLead] = kinds(AUTHORS.split(" ")).map(([[before]], at) => {
      const [[value]] = [vanilla, normed, lead][at];
      return way === AUTHORS ? number(value) : `from ${number(before)} to ${number(value)}`;
    });
    const missing = Object.keys(data.variants).filter((variant) => !accuracies(variant, way.split(" "))[0]);
    const names = chosen.others.checked ? missing.map((variant) => data.variants[variant].name).join(", ") : "";
    const said = `At r = 4: vanilla ${ofVanilla}, BatchNorm ${ofNormed}, BatchNorm's lead ${ofLead}.`;
    gap.querySelector("[role=status]").textContent = said + (names && ` Not measured this way: ${names}.`);
    gap.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", button.value === way));
    const still = last === way || matchMedia("(prefers-reduced-motion: reduce)").matches;
    const move = (time) => {
      const share = still ? 1 : Math.min(1, Math.max(0, time - started) / 600);
      drawChart(last, share);
      if (share < 1) sliding = requestAnimationFrame(move);
    };
    cancelAnimationFrame(sliding);
    move(started);
  }

  function choose(ways) {
    [chosen.feed.value, chosen.statistics.value, chosen.help.value] = ways.split(" ");
    measure();
  }

  const print = document.querySelector(".hfc-print");
  gap.hidden = print.hidden = false;
  gap.addEventListener("input", measure);
  gap.addEventListener("click", ({ target: { name, value } }) => {
    if (name === "preset") choose(value);
  });
  print.addEventListener("click", () => window.print());
  window.addEventListener("beforeprint", () => { // on paper the second state, which shows both
    choose(gap.querySelector("button:last-of-type").value);
    cancelAnimationFrame(sliding);
    drawChart(way, 1);
  });
  window.addEventListener("resize", () => drawChart(way, 1));
  measure();
})();
