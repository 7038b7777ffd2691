/**
 * Shapes as spans of pixels. Functions call `span(y, x0, x1)` for pixels x0 to x1 - 1 of row y.
 *
 * Coordinates are in pixels of the image; the centre of pixel (x, y) is (x + 0.5, y + 0.5). A pixel
 * belongs to a shape if its centre lies in it. Spans may reach beyond the image.
 */

/** Return where a brush of `size` pixels stands: on a pixel's centre if odd, on a corner if not. */
export function snapped(x, y, size) {
  return size % 2 ? [Math.floor(x) + 0.5, Math.floor(y) + 0.5] : [Math.round(x), Math.round(y)];
}

/** A brush stroke: all within `radius` of the line from (ax, ay) to (bx, by). */
export function capsule(ax, ay, bx, by, radius, span) {
  const first = Math.ceil(Math.min(ay, by) - radius - 0.5);
  const last = Math.floor(Math.max(ay, by) + radius - 0.5);
  const length = Math.hypot(bx - ax, by - ay);
  const [nx, ny] = length
    ? [(-(by - ay) / length) * radius, ((bx - ax) / length) * radius]
    : [0, 0];
  const corners = [
    [ax + nx, ay + ny],
    [bx + nx, by + ny],
    [bx - nx, by - ny],
    [ax - nx, ay - ny],
  ];
  for (let y = first; y <= last; y++) {
    let low = Infinity;
    let high = -Infinity;
    const reach = (x) => {
      low = Math.min(low, x);
      high = Math.max(high, x);
    };
    for (const [cx, cy] of [
      [ax, ay],
      [bx, by],
    ]) {
      const half = Math.sqrt(radius ** 2 - (y + 0.5 - cy) ** 2); // NaN beyond the disc
      if (half >= 0) (reach(cx - half), reach(cx + half));
    }
    if (length) crossings(corners, y + 0.5).forEach(reach);
    const x0 = Math.ceil(low - 0.5);
    const x1 = Math.floor(high - 0.5) + 1;
    if (x0 < x1) span(y, x0, x1);
  }
}

/** Return where the outline of a polygon crosses a horizontal line, in no order. */
function crossings(points, y) {
  const found = [];
  points.forEach(([bx, by], i) => {
    const [ax, ay] = points.at(i - 1);
    if (ay <= y !== by <= y) found.push(ax + ((y - ay) / (by - ay)) * (bx - ax));
  });
  return found;
}

/** A polygon of points [x, y], closed by itself; where it overlaps itself twice, it is open. */
export function polygon(points, span) {
  const rows = points.map(([, y]) => y);
  const first = Math.ceil(Math.min(...rows) - 0.5);
  const last = Math.floor(Math.max(...rows) - 0.5);
  for (let y = first; y <= last; y++) {
    const xs = crossings(points, y + 0.5).sort((a, b) => a - b);
    for (let i = 0; i + 1 < xs.length; i += 2) {
      const x0 = Math.ceil(xs[i] - 0.5);
      const x1 = Math.ceil(xs[i + 1] - 0.5);
      if (x0 < x1) span(y, x0, x1);
    }
  }
}

/**
 * The connected pixels (four neighbours) of equal value around pixel (x, y) of a map
 * `{width, height, data}`.
 */
export function component({ width, height, data }, x, y, span) {
  const value = data[y * width + x];
  const seen = new Uint8Array(width * height);
  const stack = [y * width + x];
  while (stack.length) {
    const at = stack.pop();
    if (seen[at]) continue;
    const row = at - (at % width);
    let left = at;
    let right = at + 1;
    while (left > row && data[left - 1] === value) left--;
    while (right < row + width && data[right] === value) right++;
    seen.fill(1, left, right);
    span(row / width, left - row, right - row);
    for (const next of [row - width, row + width]) {
      if (next < 0 || next >= width * height) continue;
      const shift = next - row;
      for (let i = left; i < right; i++) {
        const other = i + shift;
        const starts = data[other] === value && !seen[other];
        if (starts && (i === left || data[other - 1] !== value)) stack.push(other);
      }
    }
  }
}

/**
 * Carry spans of a map over to the image (width, height), which may be larger. The pixel (X, Y) of
 * the image is the pixel (floor(X * w / width), floor(Y * h / height)) of the map.
 */
export function enlarged(map, width, height, span) {
  return (y, x0, x1) => {
    const left = Math.ceil((x0 * width) / map.width);
    const right = Math.ceil((x1 * width) / map.width);
    const bottom = Math.ceil(((y + 1) * height) / map.height);
    for (let Y = Math.ceil((y * height) / map.height); Y < bottom; Y++) span(Y, left, right);
  };
}

/** Return the pixel [X, Y] of a map for the pixel (x, y) of the image (width, height). */
export function pixelOf(map, x, y, width, height) {
  return [Math.floor((x * map.width) / width), Math.floor((y * map.height) / height)];
}

/** Return the value of a map at the pixel (x, y) of the image (width, height). */
export function valueAt(map, x, y, width, height) {
  const [column, row] = pixelOf(map, x, y, width, height);
  return map.data[row * map.width + column];
}

/**
 * Keep the part of spans that lies in the image (width, height) and in regions of a map. `chosen`
 * is a table with a 1 for each region that counts.
 */
export function within(map, chosen, width, height, span) {
  return (y, x0, x1) => {
    if (y < 0 || y >= height) return;
    const row = Math.floor((y * map.height) / height) * map.width;
    const end = Math.min(x1, width);
    let start = -1;
    for (let x = Math.max(0, x0); x <= end; x++) {
      const region = map.data[row + Math.floor((x * map.width) / width)];
      const inside = x < end && chosen[region] === 1;
      if (inside && start < 0) start = x;
      if (!inside && start >= 0) {
        span(y, start, x);
        start = -1;
      }
    }
  };
}
