// Draw the footprints of the exposures that are kept and in view.
const most = 2000
const {ra, dec, value} = Object.fromEntries(["ra", "dec", "value"].map((key) => [key, source.data[key]]))
const [left, right] = [Math.min(sky.x_range.start, sky.x_range.end), Math.max(sky.x_range.start, sky.x_range.end)]
const [bottom, up] = [sky.y_range.start, sky.y_range.end]
const is_near = (place, first, last) => !(place < first - 1 || place > last + 1)  // true where the range isn't known yet
const rows = []
for (let row = 0; row < ra.length; row++) {
  if (kept.booleans[row] && is_near(ra[row], left, right) && is_near(dec[row], bottom, up)) rows.push(row)
}
if (rows.length > most) rows.length = 0
const pick = (column) => rows.map((row) => column[row])
const before = outlines.data.stem
const stems = pick(source.data.stem)
if (stems.length || before.length) {
  outlines.data = {
    xs: pick(others.data.xs), ys: pick(others.data.ys), value: pick(value), stem: stems,
    state: pick(source.data.state), outlier_text: pick(source.data.outlier_text),
  }
}
