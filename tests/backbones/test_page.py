"""``docs/backbones.md`` is what ``docs/backbones.py`` writes."""

import importlib.util
import re

import yaml
from jsonargparse import ArgumentParser

from jellyfit import backbones
from tests.conftest import ROOT


def script():
    spec = importlib.util.spec_from_file_location("docs_backbones", ROOT / "docs/backbones.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_backbones_is_the_one_written_from_them_and_its_code_runs(capsys):
    text = (ROOT / "docs/backbones.md").read_text()
    assert text == script().page(), "run: python docs/backbones.py"
    named = {line.split("`")[1].split("(")[0] for line in text.splitlines() if line.startswith("| `") and "(" in line}
    networks = {
        name for name in backbones.__all__ if name.endswith(("Net", "MLP", "VGG", "VGGSNN", "former", "Former"))
    }
    assert named == networks
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, scope)
    assert scope["y_seq"].shape == (4, 2, 10)
    assert capsys.readouterr().out == "122 [] [] []\n"
    options = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])["backbone"]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--backbone", type=backbones.Backbone)
    assert type(parser.instantiate_classes(parser.parse_object({"backbone": options})).backbone).__name__ == "SEWResNet"
