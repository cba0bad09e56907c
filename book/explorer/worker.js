/* The explorer's worker: it makes a picture of a reader's file, and asks the live network, while the page goes on. The
   network is vanilla ResNet-18 of width 16, its weights as stored (float16), its arithmetic in float32. A message is
   [number, task, input]; the answer is [number, value] or [number, undefined, what went wrong]. */
"use strict";
const SIDE = 32, PIXELS = SIDE * SIDE;
const sum = (values) => values.reduce((total, value) => total + value, 0);
let tensors; // by name

function half(bits) {
  const exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024;
  return (bits >> 15 ? -1 : 1) * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
}

function unpack({ shapes, float16 }) {
  const content = Uint8Array.from(atob(float16), (character) => character.charCodeAt(0));
  const values = Float32Array.from(new Uint16Array(content.buffer), half);
  let from = 0;
  tensors = Object.fromEntries(shapes.map(([name, shape]) => {
    const size = shape.reduce((product, length) => product * length);
    return [name, { shape, values: values.subarray(from, (from += size)) }];
  }));
}

/* Convolution of square maps {side, values} with odd kernels, padded so that stride 1 keeps the side. */
function convolve(maps, name, stride) {
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
function logits(picture) {
  let maps = relu(convolve({ side: SIDE, values: picture }, "conv1", 1));
  for (let index = 0; index < 8; index++) {
    const block = `blocks.${index}`, stride = index > 1 && index % 2 === 0 ? 2 : 1;
    const inner = relu(convolve(maps, `${block}.conv1`, stride));
    const outer = convolve(inner, `${block}.conv2`, 1);
    const projected = `${block}.shortcut.0`;
    const shortcut = `${projected}.weight` in tensors ? convolve(maps, projected, stride) : maps;
    maps = relu({ side: outer.side, values: outer.values.map((value, at) => value + shortcut.values[at]) });
  }
  const area = maps.side * maps.side, means = [], weights = tensors["fc.weight"].values;
  for (let at = 0; at < maps.values.length; at += area) means.push(sum(maps.values.subarray(at, at + area)) / area);
  return tensors["fc.bias"].values.map((bias, label) =>
    bias + sum(means.map((mean, at) => mean * weights[label * means.length + at])));
}

/* The central square of a file's picture, averaged to 32 x 32 pixels. */
async function picture(file) {
  const image = await createImageBitmap(file), square = Math.min(image.width, image.height);
  const times = Math.max(1, Math.floor(square / SIDE)), side = times * SIDE, crop = Math.min(side, square);
  const context = new OffscreenCanvas(side, side).getContext("2d");
  context.fillStyle = "white"; // below transparent pixels
  context.fillRect(0, 0, side, side);
  context.drawImage(image, (image.width - crop) >> 1, (image.height - crop) >> 1, crop, crop, 0, 0, side, side);
  const rgba = context.getImageData(0, 0, side, side).data, averages = new Float32Array(3 * PIXELS);
  for (let at = 0; at < rgba.length; at++) { // the browser's own resizing would alias
    const x = Math.floor(((at >> 2) % side) / times), y = Math.floor((at >> 2) / side / times);
    if (at % 4 < 3) averages[(at % 4) * PIXELS + y * SIDE + x] += rgba[at] / 255 / times ** 2;
  }
  return averages;
}

const tasks = { unpack, picture, logits };
onmessage = async ({ data: [number, task, input] }) => {
  try {
    postMessage([number, await tasks[task](input)]);
  } catch (error) {
    postMessage([number, undefined, error.message]);
  }
};
