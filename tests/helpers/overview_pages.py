"""What tests do in a page of many exposures: look into its models and cells, change widgets, click."""

import contextlib
import time

#: Finds elements in the shadow trees of the library, too.
FIND = """
window.find = (selector, root = document) => [...root.querySelectorAll(selector),
  ...[...root.querySelectorAll('*')].flatMap(e => e.shadowRoot ? find(selector, e.shadowRoot) : [])]
window.model = name => Bokeh.documents[0].get_model_by_name(name)
window.pause = () => new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))
window.drawn = async () => { for (let i = 0; i < 100; i++) { await pause(); if (model('details').tags[1]) return } }
window.kept = () => +document.getElementById('kept').textContent.replaceAll(',', '')
window.cells = place => find('.slick-row').sort((a, b) => a.getBoundingClientRect().y - b.getBoundingClientRect().y)
  .map(row => row.children[place].innerText)
"""
READY = """new Promise(done => { const look = () =>
  window.Bokeh?.documents[0]?.is_idle ? requestAnimationFrame(() => setTimeout(done, 100)) : setTimeout(look, 20); look() })"""
#: The library says the latter of a plot in which no point is left.
HARMLESS = "could not set initial ranges"


def open_overview(page, path, width=1400):
    """Open a page, wait until it is drawn, and define the functions of `FIND` in it."""
    page.open(path, width)
    page.evaluate(READY)
    page.evaluate(FIND)


def errors_of(page):
    """Errors since the page was opened."""
    return [error for error in page.errors if HARMLESS not in error]


def change(page, name, setting):
    """Set a property of a widget as a user's input does; return how many exposures are kept."""
    return page.evaluate(f"(async () => {{ model('{name}').{setting}; await drawn(); return kept() }})()")


def click(page, selector, text=""):
    """Click the middle of the first element that has a text."""
    place = page.evaluate(f"""(() => {{
      const element = find('{selector}').find(e => e.innerText.includes('{text}'))
      element.scrollIntoView({{block: 'center'}})
      const box = element.getBoundingClientRect()
      return [box.x + Math.min(box.width, 60) / 2, box.y + box.height / 2]
    }})()""")
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)


def follow(page, selector, address):
    """Click on a link, and wait until the page at an address is there."""
    click(page, selector)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(AssertionError):  # between two pages
            if page.evaluate("document.readyState === 'complete' && location.href") == address:
                page.evaluate(FIND)
                return
        time.sleep(0.05)
    raise AssertionError(f"{address} was not opened")
