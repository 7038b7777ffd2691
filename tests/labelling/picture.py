"""Take the picture of the labelling page that README shows: ``python -m tests.labelling.picture``.

A simulated person paints strokes on stained tissue (of scikit-image, in the public domain),
corrects four images entirely, and begins the fifth. Score and prediction are of this session.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright
from scipy import ndimage
from skimage import color, data

from tests.labelling.browsing import ARGUMENTS, CHROMIUM, Window, serving

PICTURE = Path(__file__).parents[1] / "pictures" / "label.png"
SIDE = 288
CORNERS = [(0, 0), (0, 224), (224, 0), (120, 100), (224, 224), (60, 180), (180, 40)]
TOML = "ignore = [255]\n" + "".join(
    f'[[class]]\nname = "{name}"\nvalue = {value}\ncolour = "{colour}"\n'
    for value, (name, colour) in enumerate(
        [("tissue", "#56b4e9"), ("stain", "#d55e00"), ("nucleus", "#009e73")]
    )
)


def classify(image):
    """Return (H, W) uint8: brown (1), blue (2), and the rest, by colour alone."""
    blue, _, brown = (
        ndimage.gaussian_filter(part, 1.5) for part in np.moveaxis(color.rgb2hed(image), -1, 0)
    )
    found = np.zeros(image.shape[:2], np.uint8)
    found[blue > np.percentile(blue, 82)] = 2
    found[brown > np.percentile(brown, 78)] = 1
    return found


def paint(tab, truth, rng, count):
    """Paint short strokes well inside of each class."""
    for index in np.unique(truth):
        inside = ndimage.distance_transform_edt(truth == index)
        places = np.argwhere(inside > np.percentile(inside[inside > 0], 85))
        tab.choose("brush", 5, int(index))
        for y, x in rng.permutation(places)[:count].tolist():
            end = (min(SIDE - 1, x + 7), y + int(rng.integers(-3, 4)))
            points = np.linspace((x, y), end, 8).round().astype(int).clip(0, SIDE - 1)
            kept = [(int(a), int(b)) for a, b in points if truth[b, a] == index]
            tab.paint(*kept)


def correct(tab, truth):
    """Label the whole image, row by row, as one stroke."""
    rows = [[int(v) for v in row] for row in truth]
    tab.page.evaluate(
        "(rows) => { const { session } = unetseg; session.begin();"
        " rows.forEach((row, y) => row.forEach((v, x) => session.labels.paint(y, x, x + 1, v)));"
        " session.commit(); }",
        rows,
    )


def with_palette(picture):
    """Return a screenshot in 256 colours, for a third of the size: those of the page are exact."""
    counted = sorted(picture.getcolors(2**24), reverse=True)[:72]
    own = [value for _, colour in counted for value in colour]
    rest = picture.quantize(256 - 72).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette((own + rest)[: 256 * 3])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def main():
    rng = np.random.default_rng(3)
    whole = data.immunohistochemistry()
    truth = classify(whole)
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        folder = Path(home) / "biopsy"
        (folder / "images").mkdir(parents=True)
        (folder / "classes.toml").write_text(TOML)
        for k, (y, x) in enumerate(CORNERS):
            part = Image.fromarray(whole[y : y + SIDE, x : x + SIDE])
            part.save(folder / "images" / f"section-{k + 1}.png")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        with serving(folder) as address:
            context = browser.new_context(viewport={"width": 1280, "height": 760})
            tab = Window(context.new_page(), address)
            for k in range(5):
                number = tab.ask("unetseg.session.image.number")
                y, x = CORNERS[number]
                part = truth[y : y + SIDE, x : x + SIDE]
                tab.page.wait_for_timeout(2500)  # the prediction before the first stroke
                paint(tab, part, rng, 4)
                tab.saved()
                tab.until("unetseg.session.answer", 60)
                if k < 4:
                    correct(tab, part)
                    tab.saved()
                    tab.press("Enter")
                    tab.until(f"unetseg.session.image.number !== {number} && !unetseg.session.busy")
            tab.page.wait_for_timeout(4000)
            tab.page.screenshot(path=PICTURE)
            tab.close()
    with_palette(Image.open(PICTURE).convert("RGB")).save(PICTURE, optimize=True)
    print(f"Wrote {PICTURE} ({PICTURE.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
