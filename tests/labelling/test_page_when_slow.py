"""The labelling page where requests, answers and events are late, or come in another order."""

import time

import numpy as np
import pytest

from tests.labelling.browsing import NOTHING, SHAPE, blank, mask_on_disk, stroke
from tests.support import wait_until, write_images

# Events wait until `letGo` is called; it returns whether one is left.
LATE_EVENTS = """(() => {
  const held = [];
  window.letGo = () => { held.shift()?.react(); return held.length > 0; };
  const listen = EventSource.prototype.addEventListener;
  EventSource.prototype.addEventListener = function (name, react) {
    listen.call(this, name, (event) => held.push({ name, react: () => react(event) }));
  };
  window.heldEvents = (name) => held.filter((event) => event.name === name).length;
})()"""

# No event is heard while `deaf` is true; `source` is where they come from.
DEAF_TO_EVENTS = """(() => {
  const listen = EventSource.prototype.addEventListener;
  EventSource.prototype.addEventListener = function (name, react) {
    window.source = this;
    listen.call(this, name, (event) => window.deaf || react(event));
  };
})()"""

# The state of the page, for the report of a request that does not come.
PAGE = """(() => {
  const { image, busy, wanted, connected } = unetseg.session;
  const [focus, text] = [document.hasFocus(), document.body.innerText];
  return { image, busy, wanted, connected, focus, text };
})()"""


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "images", 3, shape=SHAPE)
    return tmp_path


class Held:
    """Requests of a page that wait until they are let go.

    Args:
        tab: The tab.
        pattern: A pattern of addresses.
        method: The method of the requests.
    """

    def __init__(self, tab, pattern, method):
        self.tab, self.method, self.routes, self.is_open = tab, method, [], False
        tab.route(pattern, self._see)

    def _see(self, route):
        if self.is_open or route.request.method != self.method:
            route.continue_()
        else:
            self.routes.append(route)

    def wait(self, count):
        """Wait until so many requests are held."""
        end = time.monotonic() + 60
        while len(self.routes) < count:
            assert time.monotonic() < end, f"{len(self.routes)} came; {self.tab.ask(PAGE)}"
            self.tab.page.wait_for_timeout(20)

    def let_go(self):
        """Let all requests go, those that follow too."""
        self.is_open = True
        for route in self.routes:
            route.continue_()


def names(tab):
    return tab.ask("unetseg.session.project.classes.map((c) => c.name)")


def hold_events(tab):
    tab.page.add_init_script(LATE_EVENTS)
    tab.open()


def let_events_go(tab, name):
    """Let the events go, as soon as there is one of this name."""
    tab.until(f"heldEvents('{name}')")
    while tab.ask("letGo()"):
        pass


def field(tab):
    return tab.page.locator("#classes input[type=text]")


def test_an_event_about_a_change_that_is_known_leaves_the_field_that_is_typed_in(address, window):
    tab = window(address)
    hold_events(tab)
    tab.name_class("a", "nerve")
    tab.until("unetseg.session.current === 2")
    tab.press("F2")
    tab.page.keyboard.type("ve")
    let_events_go(tab, "classes")  # of the class that was added
    tab.page.keyboard.type("in")
    assert field(tab).input_value() == "vein"
    tab.press("Enter")
    tab.until("unetseg.session.project.classes[2].name === 'vein'")
    assert tab.ask("unetseg.session.image.number") == 0
    assert tab.ask("unetseg.session.tool") == "brush"


def test_a_name_is_typed_on_while_another_window_removes_and_adds_classes(address, window):
    tab, other = window(address), window(address)
    tab.ask("unetseg.session.lock(1)")
    tab.press("2", "F2")
    tab.page.keyboard.type("ve")
    other.ask(
        "unetseg.session.changeClasses((classes) =>"
        " [{ ...classes[1], was: 1 }, { name: 'new', colour: null, was: null }])"
    )
    tab.until("unetseg.session.project.classes[1].name === 'new' && !unetseg.session.busy")
    assert names(tab) == ["object", "new"]
    tab.page.keyboard.type("in")
    tab.press("Enter")
    tab.until("unetseg.session.project.classes[0].name === 'vein'")
    other.until("unetseg.session.project.classes[0].name === 'vein'")
    assert names(tab) == names(other) == ["vein", "new"]
    assert tab.ask("[unetseg.session.current, ...unetseg.session.locked]") == [0, 0]
    tab.until("!document.querySelector('#classes form')")
    assert tab.page.locator("#classes .name").all_inner_texts() == ["vein", "new"]


def test_changes_of_classes_are_sent_one_after_the_other_and_none_takes_another_back(
    address, window
):
    tab = window(address)
    held = Held(tab, "**/api/classes", "PUT")
    tab.name_class("F2", "vein")
    held.wait(1)
    tab.page.locator("#classes input[type=color]").first.fill("#12ab34")
    tab.page.wait_for_timeout(100)
    assert len(held.routes) == 1
    held.let_go()
    tab.until("unetseg.session.project.classes[0].colour === '#12ab34'")
    assert names(tab) == ["background", "vein"]


def test_what_is_typed_while_a_name_is_on_its_way_changes_nothing(address, window):
    tab = window(address)
    held = Held(tab, "**/api/classes", "PUT")
    tab.name_class("a", "nerve")
    held.wait(1)
    tab.page.keyboard.type("b0")
    tab.press("Enter")
    assert field(tab).input_value() == "nerve"
    held.let_go()
    tab.until("unetseg.session.current === 2 && !document.querySelector('#classes form')")
    assert names(tab) == ["background", "object", "nerve"]
    assert tab.ask("unetseg.session.image.state") == "untouched"
    tab.press("e")  # keys are commands again
    assert tab.ask("unetseg.session.tool") == "eraser"


def test_a_name_that_was_refused_stays_in_its_field(address, window):
    tab = window(address)
    tab.expects_errors = True
    tab.name_class("a", "object")  # there is one
    tab.until("document.querySelector('#toast').textContent.includes('object')")
    tab.page.keyboard.type("s")
    tab.press("Enter")
    tab.until("unetseg.session.project.classes[2]?.name === 'objects'")


def test_a_stroke_of_a_class_that_was_renumbered_is_said_to_be_lost(address, window, folder):
    tab, other = window(address), window(address)
    tab.expects_errors = True
    tab.actual()
    held = Held(tab, "**/labels?*", "PUT")
    tab.choose("brush", 9, 1)
    tab.paint((50, 50), (100, 50))
    held.wait(1)
    other.ask("unetseg.session.changeClasses((classes) => [{ ...classes[1], was: 1 }])")
    held.let_go()
    tab.until("document.querySelector('#toast').textContent.startsWith('A stroke was not saved')")
    tab.until("!unetseg.session.busy && unetseg.session.project.classes.length === 1")
    assert (tab.labels() == NOTHING).all()
    tab.choose("brush", 9, 0)
    tab.paint((50, 50), (100, 50))
    tab.saved()
    line = stroke(SHAPE, [(50, 50), (100, 50)], 9)
    due = np.where(line, 1, NOTHING).astype(np.uint8)  # the class keeps its value in the masks
    assert np.array_equal(mask_on_disk(folder / "masks" / "im0.png", due), due)


def test_strokes_taken_back_before_they_were_saved_reach_the_disk_in_order(address, window, folder):
    tab = window(address)
    tab.actual()
    held = Held(tab, "**/labels?*", "PUT")
    tab.choose("brush", 9, 1)
    tab.paint((50, 50), (100, 50))
    held.wait(1)
    tab.press("z")
    tab.paint((50, 90), (100, 90))
    tab.press("z", "y")
    tab.paint((50, 50), (100, 90))
    tab.press("z")
    due = np.where(stroke(SHAPE, [(50, 90), (100, 90)], 9), 1, NOTHING).astype(np.uint8)
    assert np.array_equal(tab.labels(), due)
    assert len(held.routes) == 1
    held.let_go()
    tab.saved()
    assert np.array_equal(mask_on_disk(folder / "masks" / "im0.png", due), due)


def test_the_last_answer_is_shown_though_one_before_it_is_late(address, window):
    tab = window(address)
    tab.actual()
    held = Held(tab, "**/answer", "GET")
    for index, y in ((0, 50), (1, 90)):
        tab.choose("brush", 9, index)
        tab.paint((50, y), (100, y))
    held.wait(1)
    place = f"{address.partition('?')[0]}api/images/0/answer"
    version = lambda: tab.page.request.get(place).headers.get("answer-version")  # noqa: E731
    first = wait_until(version)
    tab.paint((50, 130), (100, 130))
    wait_until(lambda: version() != first)
    assert len(held.routes) == 1
    held.let_go()
    wait_until(lambda: tab.ask("unetseg.session.answer?.version") == int(version()))


def test_an_image_asked_for_while_another_is_opened_is_opened_next(address, window):
    tab = window(address)
    held = Held(tab, "**/labels", "GET")
    tab.press("n")
    held.wait(1)
    tab.page.locator("#images button").nth(2).click()
    held.let_go()
    tab.until("unetseg.session.image.number === 2 && !unetseg.session.busy")


def test_an_image_asked_for_while_another_is_accepted_comes_before_the_suggested_one(
    address, window
):
    tab = window(address)
    held = Held(tab, "**/accept?*", "POST")
    tab.press("0")
    held.wait(1)
    tab.press("z", "0")  # neither takes back nor accepts once more
    tab.page.locator("#images button").nth(2).click()
    held.let_go()
    tab.until("unetseg.session.image.number === 2 && !unetseg.session.busy")
    states = tab.ask("unetseg.session.project.images.map((i) => i.state)")
    assert states == ["empty", "untouched", "untouched"]
    assert len(held.routes) == 1


def test_strokes_on_an_accepted_image_are_saved_where_the_next_one_could_not_be_opened(
    address, window, folder
):
    tab = window(address)
    tab.expects_errors = True
    tab.actual()
    tab.page.route("**/labels", lambda route: route.abort())
    tab.press("0")
    tab.until("document.querySelector('#toast').textContent === 'The server does not answer.'")
    tab.until("unetseg.session.image.state === 'empty' && !unetseg.session.busy")
    tab.page.unroute("**/labels")
    tab.choose("brush", 9, 1)
    tab.click(50, 50)  # the mask is read first
    tab.until("unetseg.session.labels.data[0] === 0 && !unetseg.session.busy")
    tab.paint((50, 50), (100, 90))
    tab.saved()
    due = np.where(stroke(SHAPE, [(50, 50), (100, 90)], 9), 1, 0).astype(np.uint8)
    assert np.array_equal(tab.labels(), due)
    assert np.array_equal(mask_on_disk(folder / "masks" / "im0.png", due), due)


def test_a_key_that_is_held_accepts_one_image(address, window):
    tab = window(address)
    tab.page.keyboard.down("0")
    tab.until("unetseg.session.image.number !== 0 && !unetseg.session.busy")
    tab.page.keyboard.down("0")  # the keyboard repeats it
    tab.page.keyboard.up("0")
    assert not tab.ask("unetseg.session.busy")
    states = tab.ask("unetseg.session.project.images.map((i) => i.state)")
    assert states == ["empty", "untouched", "untouched"]


def test_an_accepted_image_stays_accepted_when_older_news_arrive(address, window):
    tab = window(address)
    hold_events(tab)
    tab.actual()
    tab.choose("brush", 9, 1)
    tab.paint((50, 50), (100, 50))
    tab.saved()
    tab.press("Enter")
    tab.until("unetseg.session.image.number !== 0 && !unetseg.session.busy")
    tab.until("heldEvents('state') >= 2")  # begun, accepted
    while True:
        assert tab.ask("unetseg.session.project.images[0].state") == "accepted"
        if not tab.ask("letGo()"):
            break


def test_an_image_that_another_window_accepts_is_painted_on_as_it_was_accepted(
    address, window, folder
):
    tab, other = window(address), window(address)
    tab.actual()
    other.press("0")
    tab.until("unetseg.session.labels.data[0] === 0 && !unetseg.session.busy")
    tab.choose("brush", 9, 1)
    tab.paint((50, 50), (100, 90))
    tab.saved()
    due = np.where(stroke(SHAPE, [(50, 50), (100, 90)], 9), 1, 0).astype(np.uint8)
    assert np.array_equal(mask_on_disk(folder / "masks" / "im0.png", due), due)


def test_strokes_of_another_window_are_shown_after_a_break_in_which_no_news_came(
    address, window, folder
):
    tab, other = window(address), window(address)
    tab.page.add_init_script(DEAF_TO_EVENTS)
    tab.open()
    tab.until("unetseg.session.pages === 2")
    tab.ask("window.deaf = true")
    tab.ask("source.onerror()")
    other.actual()
    other.choose("brush", 9, 1)
    other.paint((50, 90), (100, 90))
    other.saved()
    assert np.array_equal(tab.labels(), blank())
    tab.ask("window.deaf = false")
    tab.ask("source.onopen()")
    tab.ask("source.dispatchEvent(new MessageEvent('pages', { data: '{\"count\": 2}' }))")
    tab.until("unetseg.session.labels.data[90 * 320 + 75] === 1 && !unetseg.session.busy")
    assert np.array_equal(tab.labels(), other.labels())


def test_an_undo_takes_no_stroke_of_another_window_back(address, window, folder):
    tab, other = window(address), window(address)
    due, lines = blank(), ([(50, 50), (100, 90)], [(55, 85), (65, 85)])
    for index, (one, line) in enumerate(zip((tab, other), lines, strict=True)):
        one.actual()
        one.choose("brush", 9, index)
        one.until("!unetseg.session.busy")
        one.paint(*line)
        one.saved()
        due[stroke(SHAPE, line, 9)] = index
        for each in (tab, other):
            x, y = line[0]
            each.until(f"unetseg.session.labels.data[{y} * 320 + {x}] === {index}")
            each.until("!unetseg.session.busy")
    tab.press("z")
    tab.until("document.querySelector('#toast').textContent === 'Nothing to undo.'")
    assert np.array_equal(tab.labels(), due)
    assert np.array_equal(mask_on_disk(folder / "masks" / "im0.png", due), due)


def test_labels_of_another_window_are_shown_after_the_stroke_that_is_being_painted(
    address, window, folder
):
    tab, other = window(address), window(address)
    for one in (tab, other):
        one.actual()
        one.choose("brush", 9, 1)
    tab.page.mouse.move(*tab.place(50, 50))
    tab.page.mouse.down()
    tab.page.mouse.move(*tab.place(100, 50))
    other.paint((50, 90), (100, 90))
    other.saved()
    tab.until("unetseg.session.reading")  # the news has come, and the stroke goes on
    tab.page.mouse.move(*tab.place(150, 50))
    tab.page.mouse.up()
    due = blank()
    for line in ([(50, 50), (100, 50), (150, 50)], [(50, 90), (100, 90)]):
        due[stroke(SHAPE, line, 9)] = 1
    for one in (tab, other):
        one.until("!unetseg.session.unsaved && !unetseg.session.busy")
        one.until("unetseg.session.labels.data[90 * 320 + 75] === 1")
        one.until("unetseg.session.labels.data[50 * 320 + 125] === 1")
        assert np.array_equal(one.labels(), due)
    assert np.array_equal(mask_on_disk(folder / "masks" / "im0.png", due), due)
