"""``docs/augmentation.md`` and its picture name all that there is, and the page's code runs."""

import importlib.util
import inspect
import re

import matplotlib.image
import numpy as np
import pytest
import yaml

from jellyfit import events, frames
from jellyfit.datamodules import Digits
from jellyfit.pictures import to_array
from tests.conftest import ROOT

PAGE = (ROOT / "docs/augmentation.md").read_text()


def concrete(module, *bases):
    return {
        name
        for name in module.__all__
        if inspect.isclass(value := getattr(module, name))
        and issubclass(value, bases)
        and not inspect.isabstract(value)
    }


EVENTS = concrete(events, events.EventTransform, events.EventMix)
FRAMES = concrete(frames, frames.FrameTransform, frames.BatchTransform)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("docs_augmentation", ROOT / "docs/augmentation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(EVENTS | FRAMES | concrete(events, events.Framing)))
def test_the_page_names(name):
    assert re.search(rf"`{name}\b", PAGE)


def test_the_picture_has_a_panel_for_every_augmentation(script):
    titles = {title.split(":")[0] for title, _ in script.panels()}
    assert titles >= {f"events.{name}" for name in EVENTS - {"OneOf", "WithProbability"}}
    assert titles >= {f"frames.{name}" for name in FRAMES}


def test_the_picture_is_the_one_that_the_script_draws(script):
    drawn, kept = to_array(script.picture()), matplotlib.image.imread(ROOT / "docs/augmentation.png")
    assert drawn.shape == (*kept.shape[:2], 3), "run: python docs/augmentation.py"
    differing = np.abs(drawn / 255 - kept[..., :3]).max(-1) > 0.05
    assert differing.mean() < 0.05, "run: python docs/augmentation.py"  # fonts differ between machines
    assert (ROOT / "docs/augmentation.png").stat().st_size < 250_000


def test_the_code_of_the_page_runs():
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, scope)
    assert scope["frames"].shape == (4, 2, 8, 8)
    np.testing.assert_allclose(scope["on_device"].numpy(), scope["frames"], rtol=1e-6)
    assert scope["kept"]["p"].all()


def test_the_yaml_of_the_page_is_taken():
    first, second = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    lists = {}
    for name, entries in first["data"]["init_args"].items():
        lists[name] = []
        for entry in entries:
            module, _, cls = entry["class_path"].rpartition(".")
            found = getattr({"jellyfit.events": events, "jellyfit.frames": frames}[module], cls)
            lists[name].append(found(**entry.get("init_args", {})))
    data = Digits("nowhere", **lists)
    assert len(data.event_transforms) == 2
    assert len(second["event_transforms"]) == 2
