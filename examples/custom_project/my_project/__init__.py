"""A neuron, a task and a camera of one's own."""

from my_project.camera import MyCamera
from my_project.neuron import SquareLIF
from my_project.task import MyTask

__all__ = ["MyCamera", "MyTask", "SquareLIF"]
