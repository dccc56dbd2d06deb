"""The page in a real browser: console, requests, filter, contrast, a phone's width, no script, print, picture."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from touchstone.board import palette, picture, scoreboard
from touchstone.tests import made_up_board as made_up
from touchstone.tests import made_up_nights

pytestmark = pytest.mark.process

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}

#: Every text that is shown, with its contrast against what lies behind it.  Translucent grounds are blended; the
#: header's gradient counts as its lightest colour, the worst case for its light text.
CONTRAST = """
() => {
  const parse = (text) => {
    const found = text.match(/[\\d.]+/g).map(Number);
    const scale = text.startsWith('color(srgb') ? 255 : 1;
    return [...found.slice(0, 3).map((v) => v * scale), found[3] ?? 1];
  };
  const over = (top, under) => top.slice(0, 3).map((v, i) => v * top[3] + under[i] * (1 - top[3]));
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    const layers = [];
    for (let part = node; part; part = part.parentElement) {
      if (part.matches('.stone')) { layers.push([58, 63, 71, 1]); break; }
      const colour = parse(getComputedStyle(part).backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const poor = [], seen = new Set();
  let texts = 0;
  const check = (node, colour, words, style) => {
    const behind = ground(node), front = over(colour, behind);
    const [low, high] = [light(front), light(behind)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
    texts += 1;
    if (ratio < (large ? 3 : 4.5)) {
      const key = node.tagName + '.' + node.className + ratio.toFixed(1);
      if (!seen.has(key)) poor.push([ratio.toFixed(2), key, words.trim().slice(0, 40)]);
      seen.add(key);
    }
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement, words = walk.currentNode.textContent;
    if (!words.trim() || node.closest('script,style,title,option,[hidden]')) continue;
    const style = getComputedStyle(node);
    check(node, parse(node.closest('svg') ? style.fill : style.color), words, style);
  }
  for (const node of document.querySelectorAll('i')) {
    const style = getComputedStyle(node, '::before');
    check(node, parse(style.color), style.content, style);
  }
  return { texts, poor };
}
"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reports")
    status, records, rows = made_up.make()
    made_up_nights.write(out / "history")
    return scoreboard.render(status, records, rows, out, holes=made_up.HOLES)[0]


@pytest.fixture(scope="module")
def browser(needs: Any) -> Iterator[Any]:
    needs.peer("playwright")
    program = picture.browser()
    if program is None:
        needs.tool("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


class Visit:
    """One open page, with what it said and asked for."""

    def __init__(self, browser: Any, page_file: Path, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": DESK, "reduced_motion": "reduce", **options})
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(page_file.as_uri())

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def until(self, condition: str, argument: Any = None) -> None:
        """Wait for a condition; asked from outside, because the page's policy forbids evaluating a string inside it."""
        for _ in range(200):
            if self.page.evaluate(condition, argument):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never became true: {condition}")

    def rows(self) -> int:
        return int(self.page.evaluate("document.querySelectorAll('details.row:not([hidden])').length"))

    def filter(self, **fields: str) -> int:
        """Set the fields of the filter, wait until it has answered, and count the rows shown."""
        self.page.evaluate(
            """(fields) => {
              const form = document.querySelector('.filter');
              for (const name of ['text', 'plan', 'chapter', 'state']) form.elements[name].value = fields[name] || '';
              form.querySelector('output').textContent = '';
              form.dispatchEvent(new Event('input'));
            }""",
            fields,
        )
        self.until("() => document.querySelector('.filter output').textContent !== ''")
        return self.rows()


def test_loads_without_a_word_and_without_a_request(browser: Any, page_file: Path) -> None:
    with Visit(browser, page_file) as visit:
        visit.page.wait_for_load_state("networkidle")
        assert visit.said == []
        assert visit.asked == [page_file.as_uri()]
        assert visit.rows() == len(made_up.rows())
        assert visit.page.evaluate("document.querySelectorAll('*').length") < 60_000


def test_its_policy_forbids_the_network_and_strange_scripts(browser: Any, page_file: Path) -> None:
    """The check can fail: a request and an injected script are tried, and both are refused."""
    with Visit(browser, page_file) as visit:
        fetched = visit.page.evaluate("fetch('https://example.org/x').then(() => 'went out', () => 'refused')")
        visit.page.evaluate(
            "const s = document.createElement('script'); s.textContent = 'window.strange = 1'; document.body.append(s)"
        )
        assert fetched == "refused"
        assert visit.page.evaluate("window.strange") is None
        assert any("Content Security Policy" in words for words in visit.said)


def test_filter_by_plan_chapter_state_and_text(browser: Any, page_file: Path) -> None:
    status, _, rows = made_up.make()
    with Visit(browser, page_file) as visit:
        assert visit.filter(plan="colab") == sum(row["plan"] == "colab" for row in rows)
        assert visit.filter(chapter="sprint1") == sum(row["chapter"] == "sprint1" for row in rows)
        for state in palette.STATES:
            assert visit.filter(state=state) == sum(row["state"] == state for row in status["rows"].values())
        both = sum(row["plan"] == "colab" and row["chapter"] == "vision" for row in rows)
        assert visit.filter(plan="colab", chapter="vision") == both > 0
        one = rows[0]
        assert visit.filter(text=one["id"]) >= 1
        assert visit.page.evaluate("(id) => !document.getElementById(id).hidden", one["id"])
        assert visit.filter(text="TRIPLE-LOOP oracle") >= 1
        assert visit.filter(text="no such words anywhere") == 0
        assert visit.page.is_visible(".none")
        visit.page.click("button[type=reset]")
        visit.until("() => document.querySelectorAll('details.row[hidden]').length === 0")
        assert visit.said == []


def test_links_set_the_filter_and_open_rows(browser: Any, page_file: Path) -> None:
    status, _, rows = made_up.make()
    failing = [key for key, row in status["rows"].items() if row["state"] == "failing"]
    with Visit(browser, page_file) as visit:
        visit.page.click("#chapters a[data-chapter=vision]")
        wanted = sum(row["chapter"] == "vision" for row in rows)
        visit.until("(count) => document.querySelectorAll('details.row:not([hidden])').length === count", wanted)
        visit.page.click(f"#attention a[href='#{failing[0]}']")
        visit.until("(id) => document.getElementById(id).open", failing[0])
        assert visit.page.locator(f"[id='{failing[0]}'] ol").is_visible()
    with Visit(browser, page_file) as visit:
        visit.page.goto(f"{page_file.as_uri()}#{failing[-1]}")
        visit.page.reload()
        visit.until("(id) => document.getElementById(id).open", failing[-1])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser: Any, page_file: Path, scheme: str) -> None:
    with Visit(browser, page_file, color_scheme=scheme) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        found = visit.page.evaluate(CONTRAST)
        assert found["texts"] > 10_000
        assert found["poor"] == []
        visit.page.add_style_tag(content=".why{color:#808080!important}")
        assert visit.page.evaluate(CONTRAST)["poor"], "a grey that is too light must be found"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_sideways_scroll(browser: Any, page_file: Path, width: int) -> None:
    with Visit(browser, page_file, viewport={"width": width, "height": 844}) as visit:
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert visit.page.evaluate(wide) <= 0
        visit.page.add_style_tag(content=".row{content-visibility:visible!important}")
        visit.page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        assert visit.page.evaluate(wide) <= 0


def test_text_and_targets_are_large_enough_on_a_phone(browser: Any, page_file: Path) -> None:
    with Visit(browser, page_file, viewport=PHONE) as visit:
        sizes = visit.page.evaluate(
            """[...document.querySelectorAll('.row > summary, .filter input, .filter select, nav a')]
              .map((node) => node.getBoundingClientRect().height)"""
        )
        assert min(sizes) >= 24
        smallest = visit.page.evaluate(
            """Math.min(...[...document.querySelectorAll('.fig text')].map((node) => {
              const { a, b } = node.getCTM();  // of a turned text both have a part
              return parseFloat(getComputedStyle(node).fontSize) * Math.hypot(a, b);
            }))"""
        )
        assert smallest >= 7.5


def test_reads_without_script(browser: Any, page_file: Path) -> None:
    with Visit(browser, page_file, java_script_enabled=False) as visit:
        page = visit.page
        assert page.locator(".filter").is_hidden()
        row = page.locator("details.row").first
        assert row.locator("ol").is_hidden()
        row.locator("summary").click()
        assert row.locator("ol").is_visible()
        assert visit.said == []


def test_keyboard_and_names(browser: Any, page_file: Path) -> None:
    with Visit(browser, page_file) as visit:
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.className") == "skip"
        unnamed = visit.page.evaluate(
            """[...document.querySelectorAll('[role=img], [role=region], [role=search], nav, section, input, select')]
              .filter((node) => !node.getAttribute('aria-label') && !node.closest('label'))
              .filter((node) => !document.getElementById(node.getAttribute('aria-labelledby')))
              .map((node) => node.outerHTML.slice(0, 80))"""
        )
        assert unnamed == []


def test_prints(browser: Any, page_file: Path) -> None:
    with Visit(browser, page_file, color_scheme="dark") as visit:
        visit.page.emulate_media(media="print")
        assert visit.page.locator("nav").is_hidden()
        assert visit.page.evaluate(CONTRAST)["poor"] == []
        assert visit.page.pdf(page_ranges="1-2").startswith(b"%PDF")


def test_picture_for_the_readme(needs: Any, page_file: Path, tmp_path: Path) -> None:
    if picture.browser() is None:
        needs.tool("chromium")
    drawn = picture.make_picture(page_file, tmp_path / "deep" / "scoreboard.png", width=800, height=600).read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert struct.unpack(">II", drawn[16:24]) == (800, 600)
    data, at = b"", 8
    while at < len(drawn):
        size, kind = struct.unpack(">I4s", drawn[at : at + 8])
        data += drawn[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    assert len(set(zlib.decompress(data))) > 64, "a blank picture has few different bytes"
