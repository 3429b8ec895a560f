from jellyfit import neurons


class SquareLIF(neurons.BaseNode):
    """A leaky neuron driven by the square of its input: only the charge differs."""

    def neuronal_charge(self, x):
        self.v = self.v + (x * x - self.v) / 2.0
