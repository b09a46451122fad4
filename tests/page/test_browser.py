"""Every control of the page, in Chromium."""

import shutil
import threading

import pytest

from lwgan.page import server, studio
from tests.page.test_server import TOKEN, workdir  # noqa: F401

sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed"),
]
expect = sync_api.expect
expect.set_options(timeout=120_000)


@pytest.fixture(scope="module")
def address(workdir):  # noqa: F811
    own = server.open_server(studio.Studio(workdir), "127.0.0.1", 0, TOKEN)
    thread = threading.Thread(target=own.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{own.port}/{TOKEN}/"
    own.shutdown()
    thread.join()
    own.server_close()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # Without a sandbox, as root has to.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def context(browser, address):
    """A browser of its own, in which nothing may go wrong or leave the machine."""
    opened = browser.new_context(viewport={"width": 1200, "height": 900})
    opened.set_default_timeout(120_000)
    wrong = []
    opened.on("weberror", lambda error: wrong.append(str(error.error)))
    opened.on("console", lambda said: said.type == "error" and wrong.append(said.text))
    opened.on(
        "request",
        lambda asked: asked.url.startswith((address, "data:", "blob:")) or wrong.append(asked.url),
    )
    yield opened
    opened.close()
    # Chromium names each request that was refused.
    assert not [words for words in wrong if "status of 400" not in words]


def visit(context, address):
    page = context.new_page()
    page.goto(address)
    expect(page.locator("#images img")).to_have_count(1)
    return page


@pytest.fixture
def page(context, address):
    return visit(context, address)


def image(page):
    return page.locator("#images img").first.get_attribute("src")


def changes(page, act):
    """Does something, and waits until the page shows another image."""
    before = image(page)
    act()
    expect(page.locator("#images img").first).not_to_have_attribute("src", before)


def saved(page, button):
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    return download.value.path().read_bytes()


def slide(page, name, value):
    page.get_by_label(name).fill(str(value))


def test_seeds_and_their_history(page):
    for name in ("Next", "Next", "Previous", "Random"):
        changes(page, page.get_by_role("button", name=name, exact=True).click)
    changes(page, lambda: page.get_by_label("Seed", exact=True).fill("123"))
    expect(page.locator("#command")).to_contain_text("--seeds=123")
    expect(page.locator("#history button")).to_have_count(5)
    changes(page, page.locator("#history").get_by_role("button", name="2", exact=True).click)
    expect(page.get_by_label("Seed", exact=True)).to_have_value("2")
    page.get_by_label("Seed", exact=True).fill("-7")
    expect(page.locator("#command")).to_contain_text("--seeds=0")


def test_how_images_are_drawn(page):
    command = page.locator("#command")
    slide(page, "Truncation", 0.5)
    expect(command).to_contain_text("--truncation=0.5")
    page.get_by_label("live").check()
    expect(command).to_contain_text("--weights=raw")
    page.get_by_label("none", exact=True).check()
    expect(command).to_contain_text("--noise=zero")
    page.get_by_label("fresh").check()
    expect(command).to_contain_text("--latents=latent.npy")
    expect(page.locator("#needs-latent")).to_be_visible()
    page.get_by_label("Label").select_option("boats, small")
    expect(command).to_contain_text("--label='boats, small'")
    slide(page, "Checkpoint", 0)
    expect(command).to_contain_text("--step=2")
    page.get_by_role("button", name="Watch it learn").click()
    expect(command).to_contain_text("--step=4")


def test_a_grid_and_one_of_it(page):
    page.get_by_label("grid").check()
    expect(page.locator("#images img")).to_have_count(16)
    page.get_by_role("img", name="Seed 9, step 4").click()
    expect(page.locator("#images img")).to_have_count(1)
    expect(page.locator("#command")).to_contain_text("--seeds=9")


def test_directions(page):
    changes(page, lambda: slide(page, "factor 2", 1.5))
    expect(page.locator("#command")).to_contain_text("--latents=latent.npy")
    changes(page, page.get_by_role("button", name="Back to the middle").click)
    expect(page.get_by_label("factor 2")).to_have_value("0")
    expect(page.locator("#command")).to_contain_text("--seeds=0")


def test_favourites_and_the_way_through_them(page, context, address):
    page.get_by_role("button", name="Add to favourites").click()
    expect(page.locator("#favourites img")).to_have_count(1)
    expect(page.get_by_label("Way through them")).to_be_disabled()
    changes(page, lambda: slide(page, "component 1", 2))
    page.get_by_role("button", name="Add to favourites").click()
    expect(page.locator("#favourites img")).to_have_count(2)
    changes(page, lambda: slide(page, "Way through them", 30))
    expect(page.get_by_role("img", name="Frame 30, step 4")).to_be_visible()
    page.get_by_role("button", name="Add to favourites").click()
    expect(page.locator("#favourites img")).to_have_count(3)
    assert saved(page, "Save video")[4:8] == b"ftyp"
    # They are there when the page is opened again.
    again = visit(context, address)
    expect(again.locator("#favourites img")).to_have_count(3)
    between = again.get_by_role("img", name="Favourite 3").get_attribute("src")
    again.get_by_role("img", name="Favourite 3").click()
    expect(again.locator("#images img")).to_have_attribute("src", between)
    again.get_by_role("button", name="Remove favourite 1").click()
    expect(again.locator("#favourites img")).to_have_count(2)


def test_a_favourite_is_drawn_as_it_was(page, context, address):
    page.get_by_label("none", exact=True).check()
    slide(page, "Truncation", 0.5)
    page.get_by_label("Label").select_option("cars")
    slide(page, "Checkpoint", 0)
    page.get_by_label("live").check()
    expect(page.locator("#command")).to_contain_text("--step=2 --weights=raw")
    expect(page.locator("#images")).not_to_have_attribute("aria-busy", "true")
    page.get_by_role("button", name="Add to favourites").click()
    expect(page.locator("#favourites img")).to_have_count(1)
    again = visit(context, address)
    again.get_by_role("img", name="Favourite 1").click()
    expect(again.locator("#images img")).to_have_attribute("src", image(page))
    assert again.locator("#command").inner_text() == page.locator("#command").inner_text()


def test_favourites_of_two_tabs(context, address):
    first = visit(context, address)
    for seed in (1, 2, 3):
        changes(first, lambda seed=seed: first.get_by_label("Seed", exact=True).fill(str(seed)))
        first.get_by_role("button", name="Add to favourites").click()
        expect(first.locator("#favourites img")).to_have_count(seed)
    second = visit(context, address)
    second.get_by_role("button", name="Remove favourite 1").click()
    expect(second.locator("#favourites img")).to_have_count(2)
    # This one still shows it.
    first.get_by_role("button", name="Remove favourite 2").click()
    expect(first.locator("#favourites img")).to_have_count(1)
    expect(first.get_by_role("img", name="Favourite 1: seed 3")).to_be_visible()


def test_a_grid_of_a_favourite_opens_its_own(page):
    changes(page, lambda: slide(page, "factor 1", 2))
    page.get_by_label("grid").check()
    expect(page.locator("#images img")).to_have_count(16)
    page.get_by_role("img", name="Seed 3, step 4").click()
    expect(page.locator("#images img")).to_have_count(1)
    expect(page.get_by_label("factor 1")).to_have_value("2")
    expect(page.locator("#command")).to_contain_text("--seed=3")


def test_new_checkpoints_come_and_old_ones_go(page, workdir):  # noqa: F811
    later = workdir / "checkpoints" / "6"
    before = image(page)
    shutil.copytree(workdir / "checkpoints" / "2", later)
    try:
        expect(page.locator("#command")).to_contain_text("--step=6")
        assert image(page) != before
    finally:
        shutil.rmtree(later)
    expect(page.locator("#command")).to_contain_text("--step=4")
    expect(page.locator("#images img")).to_have_attribute("src", before)


def test_what_is_saved(page):
    page.get_by_label("Seed", exact=True).fill("5")
    expect(page.locator("#command")).to_contain_text("--seeds=5")
    assert saved(page, "Save PNG").startswith(b"\x89PNG")
    assert saved(page, "Save latent").startswith(b"\x93NUMPY")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#status")).to_have_text("Copied")
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == page.locator("#command").inner_text()


def test_nearest_training_images(page):
    page.get_by_role("button", name="Nearest training images").click()
    expect(page.locator("#nearest img")).to_have_count(4)


def test_an_image_is_found(page, workdir, monkeypatch):  # noqa: F811
    monkeypatch.setattr(studio, "_EFFORT", studio.Effort(candidates=16, starts=2, steps=20))
    files = sorted((workdir.parent / "images").rglob("*.png"))
    changes(page, lambda: page.get_by_label("Choose or drop").set_input_files(files[0]))
    expect(page.locator("#status")).to_contain_text("Found, without noise")
    expect(page.locator("#command")).to_contain_text("--noise=zero")
    page.get_by_label("Choose or drop").set_input_files(__file__)
    expect(page.locator("#status")).to_contain_text("does not decode")


def test_two_tabs_do_not_mix(context, address):
    first, second = visit(context, address), visit(context, address)
    changes(first, lambda: first.get_by_label("Seed", exact=True).fill("11"))
    changes(second, lambda: second.get_by_label("live").check())
    expect(first.get_by_label("averaged")).to_be_checked()
    expect(second.get_by_label("Seed", exact=True)).to_have_value("0")
    for _ in range(3):
        first.get_by_role("button", name="Next", exact=True).click()
        second.get_by_role("button", name="Previous", exact=True).click()
    expect(first.locator("#command")).to_contain_text("--weights=ema --seeds=14")
    expect(second.locator("#command")).to_contain_text("--weights=raw --seeds=4294967293")


def test_the_keyboard_reaches_everything(page):
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id || document.activeElement.name"))
    controls = "before after random view step learn weights label truncation noise"
    assert set(controls.split()) <= reached
    assert {"save-image", "save-latent", "keep", "find-nearest", "copy", "file"} <= reached
    assert {"direction-0", "direction-3", "straighten"} <= reached
    page.locator("#truncation").focus()
    changes(page, lambda: page.keyboard.press("ArrowLeft"))
    page.locator("#after").focus()
    changes(page, lambda: page.keyboard.press("Enter"))
    page.get_by_label("averaged").focus()
    changes(page, lambda: page.keyboard.press("ArrowRight"))
    expect(page.get_by_label("live")).to_be_checked()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_bars_the_way(browser, address, scheme, width):
    """Axe's rules, and no need to scroll sideways."""
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, reduced_motion="reduce"
    )
    page = visit(context, address)
    page.get_by_role("button", name="Add to favourites").click()
    expect(page.locator("#favourites img")).to_have_count(1)
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    context.close()
