// List the exposures that are selected in the table or in a plot, with links and what is unusual in them.
const list = document.getElementById("chosen")
const data = {...others.data, ...source.data}
const most = 20
const indices = source.selected.indices
list.replaceChildren(...indices.slice(0, most).map((row) => {
  const item = document.createElement("li")
  const name = document.createElement(data.page[row] ? "a" : "b")
  name.textContent = data.stem[row]
  if (data.page[row]) name.href = data.page[row]
  const facts = [data.state[row], data.steps[row], data.note[row]]
  item.append(name, `: ${facts.filter((fact) => fact).join("; ")}`)
  return item
}))
if (indices.length > most) {
  const item = document.createElement("li")
  item.textContent = `and ${indices.length - most} more`
  list.append(item)
}
