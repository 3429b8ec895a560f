"""``docs/surrogates.md`` is what ``docs/pictures.py`` writes."""

import importlib.util

import matplotlib.image

from jellyfit import surrogates
from jellyfit.pictures import to_array
from tests.conftest import ROOT


def script():
    spec = importlib.util.spec_from_file_location("docs_pictures", ROOT / "docs/pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_the_one_written_from_the_surrogates():
    assert (ROOT / "docs/surrogates.md").read_text() == script().page(), "run: python docs/pictures.py"


def test_the_page_has_a_line_for_every_surrogate():
    lines = (ROOT / "docs/surrogates.md").read_text().splitlines()
    named = {line.split("`")[1].split("(")[0] for line in lines if line.startswith("| `") and "(" in line}
    assert named == set(surrogates.__all__) - {"SurrogateFunction", "heaviside"}


def test_the_picture_has_a_panel_for_every_surrogate():
    figure = script().picture()
    titles = {axes.get_title("left") for axes in figure.axes if axes.axison}
    assert titles == set(surrogates.__all__) - {"SurrogateFunction", "heaviside"}
    drawn, kept = to_array(figure), matplotlib.image.imread(ROOT / "docs/surrogates.png")
    assert drawn.shape == (*kept.shape[:2], 3), "run: python docs/pictures.py"
