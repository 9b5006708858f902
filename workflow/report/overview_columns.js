// Show the chosen columns in the table, and the chosen number in the plots.
const name = number.value
const data = Object.fromEntries(always.map((key) => [key, source.data[key]]))
data.value = others.data[name]
for (const key of columns.value) data[key] ??= others.data[key]
source.data = data
// On a phone, other columns show beside the name of the exposure, and the map is higher than wide.
const is_narrow = document.documentElement.clientWidth < 600
const widest = is_narrow ? 150 : Infinity
if (is_narrow) sky.height = sky.width
for (const column of table.columns) {
  if (column.width > widest) column.width = widest
  const visible = columns.value.includes(column.field)
  if (column.visible !== visible) column.visible = visible
}

trend_axis.axis_label = titles[name]
distribution_axis.axis_label = titles[name]
for (const element of document.querySelectorAll(".number")) element.textContent = titles[name]

// Colors cover all but the most extreme values, so that an outlier doesn't hide the differences of the others.
const known = Float64Array.from(data.value.filter(Number.isFinite)).sort()
const [low, high] = [0.02, 0.98].map((part) => known[Math.round(part * (known.length - 1))] ?? 0)
colors.setv({low, high: high > low ? high : low + 1})
