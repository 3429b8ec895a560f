"""``docs/neurons.md`` and ``docs/surrogates.md`` are what ``docs/pictures.py`` writes."""

import importlib.util
import re

import matplotlib.image

from jellyfit import neurons, surrogates
from jellyfit.pictures import to_array
from tests.conftest import ROOT


def script():
    spec = importlib.util.spec_from_file_location("docs_pictures", ROOT / "docs/pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_the_one_written_from_the_surrogates():
    assert (ROOT / "docs/surrogates.md").read_text() == script().page(), "run: python docs/pictures.py"


def test_the_page_of_neurons_is_the_one_written_from_them_and_its_code_runs():
    text = (ROOT / "docs/neurons.md").read_text()
    assert text == script().neurons_page(), "run: python docs/pictures.py"
    named = {line.split("`")[1].split("(")[0] for line in text.splitlines() if line.startswith("| `") and "(" in line}
    assert named == {name for name in neurons.__all__ if name.endswith(("Node", "PSN"))}
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, scope)
    assert scope["per_sample"].shape == (32, 4, 16)


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
