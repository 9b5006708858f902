// Keep the exposures that the filters choose. The table shows them at once; the plots follow in the next frame.
const data = {...others.data, ...source.data}
const size = data.stem.length
const name = number.value
const values = data.value
const words = search.value_input.toLowerCase().split(/\s+/).filter((word) => word)
const texts = Object.values(data).filter((column) => typeof column[0] == "string")
const chosen = [
  [data.state, state], [data.detector, detector],
  [data.optical_element, optical_element], [data.exposure_type, exposure_type],
].filter(([, widget]) => widget.value.length).map(([column, widget]) => [column, new Set(widget.value)])
const low = minimum.value ?? -Infinity
const high = maximum.value ?? Infinity
const bounded = low > -Infinity || high < Infinity
const only_unusual = unusual.active.length > 0

const booleans = new Array(size)
const rows = []
for (let row = 0; row < size; row++) {
  let keep = chosen.every(([column, allowed]) => allowed.has(column[row]))
  keep &&= !bounded || (values[row] >= low && values[row] <= high)
  keep &&= !only_unusual || data.outliers[row] !== "" || ["failed", "outdated"].includes(data.state[row])
  if (keep && words.length) {
    const text = texts.map((column) => column[row]).join("\n").toLowerCase()
    keep = words.every((word) => text.includes(word))
  }
  booleans[row] = keep
  if (keep) rows.push(row)
}
// A table that can be sorted copies all columns of each row to sort them by one: a third of the time of this script for 10,000
// exposures. It gets their order instead, which is that of its own comparison: an unknown number is the largest.
const view = cb_context.index.find_one(table)
const sorted = view === null ? [] : view.grid.getSortColumns().map(({columnId, sortAsc}) => {
  return {column: data[view.grid.getColumns()[view.grid.getColumnIndex(columnId)].field], sign: sortAsc ? 1 : -1}
})
table.setv({sortable: false}, {silent: true})
kept.booleans = booleans
table.setv({sortable: true}, {silent: true})
if (sorted.length) {
  const in_words = new Intl.Collator().compare
  const compare = (one, other) => typeof one == "number" ? one - other || isNaN(one) - isNaN(other) : in_words(one, other)
  view.grid.getData().index = [...rows].sort((one, other) => {
    for (const {column, sign} of sorted) {
      const order = compare(column[one], column[other])
      if (order) return sign * order
    }
    return 0
  })
  view.updateSelection()
  view.grid.invalidate()
}
document.getElementById("kept").textContent = rows.length.toLocaleString("en")

const turn = (others.tags[0] ?? 0) + 1
others.tags = [turn]
const draw = () => {
  if (others.tags[0] !== turn) return  // another filter has come since
  drawn.booleans = booleans
  const finite = (list) => Float64Array.from(list.filter(Number.isFinite)).sort()
  const known = finite(rows.map((row) => values[row]))

  const marked = rows.filter((row) => data.outliers[row].split(",").includes(name))
  const pick = (column) => marked.map((row) => column[row])
  marks.data = {
    time: pick(data.time), value: pick(values), one: marked.map(() => 1),
    stem: pick(data.stem), note: pick(data.note), ra: pick(data.ra), dec: pick(data.dec),
  }

  const bins = 60
  const [first, last] = known.length ? [known[0], known[known.length - 1]] : [0, 0]
  const step = (last - first) / bins || 1
  const top = new Array(last > first ? bins : 1).fill(known.length ? 0 : 0.5)  // without a value, a bar of no height
  for (const value of known) {
    top[Math.min(Math.floor((value - first) / step), top.length - 1)]++
  }
  bars.data = {
    left: top.map((_, bin) => first + bin * step), right: top.map((_, bin) => first + (bin + 1) * step), top,
  }

  const by_name = Object.fromEntries(focal.data.detector.map((key) => [key, []]))
  for (const row of rows) by_name[data.detector[row]]?.push(row)
  const lists = Object.values(by_name)
  const medians = lists.map((list) => {
    const sorted = finite(list.map((row) => values[row]))
    const half = (sorted.length - 1) / 2
    return (sorted[Math.floor(half)] + sorted[Math.ceil(half)]) / 2
  })
  const of_detectors = finite(medians)
  const [least, greatest] = [of_detectors[0] ?? 0, of_detectors[of_detectors.length - 1] ?? 1]
  const most = greatest > least ? greatest : least + 1
  by_detector.setv({low: least, high: most})
  const is_dark = (value) => value < (least + most) / 2  // the lower half of the colors
  const is_marked = new Set(marked)
  focal.data = {
    ...focal.data, value: medians, ink: medians.map((median) => is_dark(median) ? "#ffffff" : "#1a1f29"), text: medians.map((median) => Number.isFinite(median) ? `${+median.toPrecision(4)}` : "–"),
    count: lists.map((list) => list.length), marked: lists.map((list) => list.filter((row) => is_marked.has(row)).length),
  }

  draw_footprints.execute(null)

  let pictures = 0
  for (const element of document.querySelectorAll("#contact figure")) {
    element.hidden = !booleans[element.dataset.row]
    pictures += !element.hidden
  }
  document.getElementById("pictures").textContent = pictures.toLocaleString("en")
  others.tags = [turn, "drawn"]
  // The table has drawn its cells before it knew its width: those beyond the first columns are empty until it draws again.
  if (turn === 1) table.change.emit()
}
requestAnimationFrame(() => setTimeout(draw))
