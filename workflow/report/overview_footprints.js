// Draw the footprints of the exposures that are kept and in view, with the names of their detectors.
const most = 2000
const {ra, dec, value, stem, note, outliers} = source.data
const states = source.data.state
const [left, right] = [Math.min(sky.x_range.start, sky.x_range.end), Math.max(sky.x_range.start, sky.x_range.end)]
const [bottom, up] = [sky.y_range.start, sky.y_range.end]
const is_near = (place, first, last) => !(place < first - 1 || place > last + 1)  // true where the range isn't known yet
const is_lost = (row) => ["failed", "missing", "excluded"].includes(states[row])
const [rows, lost_rows] = [[], []]
for (let row = 0; row < ra.length; row++) {
  if (!kept.booleans[row]) continue
  if (is_lost(row)) {
    lost_rows.push(row)
  } else if (is_near(ra[row], left, right) && is_near(dec[row], bottom, up) && Number.isFinite(corners.data.x[4 * row])) {
    rows.push(row)
  }
}
if (rows.length > most) rows.length = 0
if (!(rows.length || lost_rows.length || outlines.data.stem.length || lost.data.stem.length)) return

const columns_of = (chosen) => {
  const pick = (column) => chosen.map((row) => column[row])
  const [xs, ys] = ["x", "y"].map((axis) => chosen.map((row) => Array.from(corners.data[axis].slice(4 * row, 4 * row + 4))))
  return {xs, ys, ra: pick(ra), dec: pick(dec), value: pick(value), stem: pick(stem), state: pick(states), note: pick(note)}
}
rows.reverse()  // the first ones of the table, which need a look, are drawn over the others
const is_marked = (row) => outliers[row].split(",").includes(number.value)
outlines.data = {...columns_of(rows), line: rows.map((row) => is_marked(row) ? marked_color : "#5a6472")}
lost.data = columns_of(lost_rows)

// One name for the dithers of a detector, as long as there is room for it.
if (sky.properties.inner_width.is_unset) return  // before the page is laid out; afterwards, this is run again
const per_degree = [sky.inner_width / (right - left), sky.inner_height / (up - bottom)]
const middle = (list) => list.reduce((sum, place) => sum + place, 0) / list.length
const placed = []
for (const row of [...rows, ...lost_rows]) {
  const name = others.data.detector[row]
  const [xs, ys] = ["x", "y"].map((axis) => Array.from(corners.data[axis].slice(4 * row, 4 * row + 4)))
  const size = (Math.max(...xs) - Math.min(...xs)) * per_degree[0]
  const text = size > 44 ? name : name.replace(/^\D+/, "")
  const wide = 7 * text.length
  if (!text || !(size > wide + 2)) continue
  const [x, y] = [middle(xs), middle(ys)]
  const crowds = (other) => Math.abs(other.x - x) * per_degree[0] < (other.text === text ? size : wide + 6)
    && Math.abs(other.y - y) * per_degree[1] < (other.text === text ? size : 16)
  if (!placed.some(crowds)) placed.push({x, y, text})
}
names.data = Object.fromEntries(["x", "y", "text"].map((key) => [key, placed.map((label) => label[key])]))
