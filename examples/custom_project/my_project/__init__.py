"""A neuron, a task and a camera of one's own."""

from my_project.data import MyCamera
from my_project.neurons import SquareLIF
from my_project.tasks import MyTask

__all__ = ["MyCamera", "MyTask", "SquareLIF"]
